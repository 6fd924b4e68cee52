#pragma once

#include <string>

namespace aprime::cli {

/// What `aprime status` does: tells what the mount on which `path` lies is doing. Returns the exit status.
/// \throws Error, std::runtime_error
int status_command(const std::string& path, bool json);

}  // namespace aprime::cli
