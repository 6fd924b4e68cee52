#pragma once

#include <string>
#include <string_view>

#include "aprime/access.hpp"
#include "aprime/error.hpp"

namespace aprime::os {

/// "<what>: <the system's words for `system_error`>", about `path` where there is one.
Error failure(Errc code, std::string_view what, int system_error, std::string path = {});

/// What is told of a file that could not be opened, and what to do about it.
Error open_failure(const std::string& path, int system_error, Access access);

/// What an errno of an operation on an open file means to the caller. Everything not named is `io`.
Errc file_errc(int system_error) noexcept;

}  // namespace aprime::os
