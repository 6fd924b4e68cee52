#pragma once

#include <string_view>

namespace aprime::os {

/// Whether a kernel release, as `uname -r` tells it ("6.18.44-generic"), is `major.minor` or newer. False for
/// a release that does not begin with two numbers.
bool is_release_at_least(std::string_view release, unsigned major, unsigned minor) noexcept;
/// The same of the running kernel.
bool is_kernel_at_least(unsigned major, unsigned minor) noexcept;

}  // namespace aprime::os
