// What a write promises beyond its bytes: that they are on the disk, if that was asked for, and when the file
// was changed.

#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "tests/mount/mounted.hpp"

namespace aprime {
namespace {

using namespace test;

// Of the page cache of the source; -1 where the kernel does not tell.
long dirty_pages(const std::string& path) {
  struct {
    std::uint64_t cached, dirty, in_writeback, evicted, recently_evicted;
  } found{};
  const struct { std::uint64_t first, size; } everything{};
  constexpr long kCachestat = 451;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const long error = ::syscall(kCachestat, fd, &everything, &found, 0);
  ::close(fd);
  return error != 0 ? -1 : static_cast<long>(found.dirty + found.in_writeback);
}

class MountWrites : public testing::TestWithParam<DeviceKind> {
 protected:
  MountWrites() {
    mounted_.make("file", std::string(kSize, 'h'));
    mapping_ = mounted_.map("file");
    client_.must("open " + mounted_.at("file"));
  }
  ~MountWrites() override { mapping_ = Mapping(); }

  Mounted mounted_{GetParam(), HostAccess::bounce};
  Mapping mapping_;
  Client client_;
};

TEST_P(MountWrites, write_changes_the_time_at_once) {
  mounted_.device_stores(mapping_, kWhole, 1);
  client_.must("set_times 1000");
  const std::string before = client_.ask("time");
  EXPECT_EQ(before, "ok 1000.0");
  client_.must("write 100 50 2");
  EXPECT_NE(client_.ask("time"), before);
}

// As programs do that copy a file with its times.
TEST_P(MountWrites, time_that_is_set_after_a_write_stays) {
  mounted_.make("idle", std::string(kSize, 'h'));
  mounted_.device_stores(mapping_, kWhole, 1);
  for (const std::string name : {"idle", "file"}) {
    client_.must("open " + mounted_.at(name));
    client_.must("map");
    client_.must("store 40000 50 2");
    client_.must("write 100 50 2");
    client_.must("set_times 1000");
    client_.must("fsync");
    EXPECT_EQ(client_.ask("time"), "ok 1000.0") << name;
    EXPECT_EQ(mounted_.content(name).substr(40000, 50), std::string(50, '\2')) << name;
  }
}

TEST_P(MountWrites, write_that_shall_be_on_the_disk_is_when_it_returns) {
  mounted_.make("idle", std::string(kSize, 'h'));
  mounted_.device_stores(mapping_, kWhole, 1);
  for (const std::string name : {"idle", "file"}) {
    client_.must("open " + mounted_.at(name));
    client_.must("fsync");
    if (dirty_pages(mounted_.plain(name)) != 0) continue;  // not told, or of a file system in memory
    if (name == "file") mounted_.device_stores(mapping_, kWhole, 2);
    client_.must("write_data_sync 100 50 3");
    EXPECT_EQ(dirty_pages(mounted_.plain(name)), 0) << name;
    EXPECT_EQ(mounted_.content(name).substr(100, 50), std::string(50, '\3')) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Each, MountWrites,
                         testing::Values(DeviceKind::emulated, DeviceKind::emulated_strict), name_of_kind);

}  // namespace
}  // namespace aprime
