#pragma once

#include <sched.h>
#include <sys/mount.h>

#include <fstream>
#include <sstream>
#include <string>

namespace aprime::test {

/// Gives this process a mount namespace of its own: what it mounts nobody else sees, and it goes with it.
/// `flags`: what else it is to have of its own. False, with errno, if it cannot be.
inline bool enter_mount_namespace(int flags = 0) {
  if (::unshare(CLONE_NEWNS | flags) != 0 ||
      ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return false;
  // Copies of other tests' mounts, which would keep those alive when they are unmounted. In a user namespace
  // of its own it may not.
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields(line);
    std::string skipped, point;
    fields >> skipped >> skipped >> skipped >> skipped >> point;
    if (line.find(" - fuse.aprime ") != std::string::npos) ::umount2(point.c_str(), MNT_DETACH);
  }
  return true;
}

}  // namespace aprime::test
