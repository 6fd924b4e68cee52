// A file system that is really full, where this process may mount one.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "host/os/file.hpp"
#include "host/os/syscalls.hpp"
#include "tests/mount_namespace.hpp"
#include "tests/os/temporary_file.hpp"

namespace aprime::os {
namespace {

constexpr std::size_t kSize = 2 << 20;

/// In a mount namespace of its own, which goes with the process.
bool mount_small(const std::string& path) {
  if (!test::enter_mount_namespace() && !test::enter_mount_namespace(CLONE_NEWUSER)) return false;
  return ::mount("aprime-test", path.c_str(), "tmpfs", 0, "size=1m") == 0;
}

int fill(const std::string& directory) {
  const bool is_small = mount_small(directory);
  const std::string path = directory + "/f";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || ::ftruncate(fd, kSize) != 0) return 1;
  ::close(fd);
  File file = File::open(path, Access::read_write);
  ::unlink(path.c_str());
  // The real thing where there is one, else a kernel that says so at the same place.
  if (!is_small) sys::set_fault_plan({.call = sys::Call::pwrite, .nth = 2, .times = 0, .error = ENOSPC});
  const std::vector<std::byte> bytes = test::pattern(512 << 10);
  Status status;
  std::size_t written = 0;
  while (status.is_ok() && written < kSize) {
    status = file.write(ByteOffset{written}, bytes);
    if (status.is_ok()) written += bytes.size();
  }
  if (status.code != Errc::no_space || status.system_error != ENOSPC) return 2;
  // Below the failing offset every byte is written, and the caller learns where it is.
  if (status.offset.value < written || status.offset.value > written + bytes.size()) return 3;
  std::vector<std::byte> back(bytes.size());
  if (written > 0 && (!file.read(ByteOffset{0}, back).is_ok() || back != bytes)) return 4;
  // Space given back can be used.
  if (!file.punch({ByteOffset{0}, ByteCount{kSize}}).is_ok()) return 5;
  sys::clear_fault_plan();
  if (!file.write(ByteOffset{kSize - bytes.size()}, bytes).is_ok()) return 6;
  return 0;
}

TEST(FullFileSystem, IsReportedAsNoSpaceWhereItHappensAndCanBeRecoveredFrom) {
  const test::TemporaryDirectory directory;
  GTEST_FLAG_SET(death_test_style, "fast");
  EXPECT_EXIT(std::_Exit(fill(directory.path())), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace aprime::os
