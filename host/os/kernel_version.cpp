#include "host/os/kernel_version.hpp"

#include <sys/utsname.h>

#include <charconv>

namespace aprime::os {

bool is_release_at_least(std::string_view release, unsigned major, unsigned minor) noexcept {
  const char* const end = release.data() + release.size();
  unsigned first = 0, second = 0;
  const auto [dot, error] = std::from_chars(release.data(), end, first);
  if (error != std::errc() || dot == end || *dot != '.') return false;
  if (std::from_chars(dot + 1, end, second).ec != std::errc()) return false;
  return first != major ? first > major : second >= minor;
}

bool is_kernel_at_least(unsigned major, unsigned minor) noexcept {
  ::utsname names{};
  return ::uname(&names) == 0 && is_release_at_least(names.release, major, minor);
}

}  // namespace aprime::os
