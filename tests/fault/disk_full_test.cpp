// Disks that run full, or fail at the last moment, under a real file system. What a full disk means to each
// call is in tests/contract/errors_test.cpp; here is what only a block device shows, and what fdatasync can
// do.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "host/os/file.hpp"
#include "host/os/syscalls.hpp"
#include "tests/contract/contract.hpp"
#include "tests/contract/kernels.hpp"
#include "tests/fault/loop_disk.hpp"

namespace aprime::fault {
namespace {

using namespace contract;
using os::sys::Call;
using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;

class Disk : public testing::TestWithParam<Personality> {
 protected:
  static constexpr std::uint64_t kFile = 128 * kGranule;

  static void store_all(World& world, const Mapping& m, Byte value) {
    world.runtime().launch({{2}, {64}, 0}, StoreEverywhere{}, aprime::write(m), value).wait();
  }
};
APRIME_CONTRACT_SUITE(Disk);

/// A mounted ext4 disk with about half of its blocks taken.
class FullExt4 {
 public:
  explicit FullExt4(World& world) : image_(world.path_for("image")), directory_(world.path_for("mnt")) {
    make_disk_image(image_, 16 << 20);
    if (::mkdir(directory_.c_str(), 0700) != 0) throw std::runtime_error("mkdir");
    disk_.emplace(image_, directory_);
  }
  std::string sparse_file(std::uint64_t size) {
    const std::string path = directory_ + "/file";
    { const std::ofstream created(path); }
    plain_truncate(path, size);
    std::ofstream ballast(directory_ + "/ballast");
    const std::string block(kPage, 'x');
    while (ballast.write(block.data(), kPage).flush()) {
    }
    ballast.close();
    plain_truncate(directory_ + "/ballast", plain_size(directory_ + "/ballast") / 2 / kPage * kPage);
    return path;
  }
  void make_room() { std::filesystem::remove(directory_ + "/ballast"); }
  std::string path() const { return directory_ + "/file"; }
  /// What is found on the disk if power fails now.
  Bytes after_loss_of_power(World& world) {
    disk_->power_off();
    const std::string copy = world.path_for("copy");
    copy_disk_image(image_, copy);
    disk_.reset();
    disk_.emplace(copy, directory_);
    return plain_read(path());
  }

 private:
  const std::string image_;
  const std::string directory_;
  std::optional<LoopDisk> disk_;
};

TEST_P(Disk, a_full_one_loses_nothing_and_has_everything_once_there_is_room) {
  World world(GetParam(), {.device_memory = 16_MiB});
  FullExt4 disk(world);
  // Less than the disk has blocks for, more than it has left.
  const std::uint64_t size = 8 << 20;
  const std::string path = disk.sparse_file(size);
  {
    const Mapping m = world.map(path);
    store_all(world, m, 0x31);
    const Error error = error_of([&] { m.sync(); });
    EXPECT_EQ(error.code(), Errc::no_space) << error.what();
    EXPECT_EQ(error.system_error(), ENOSPC);
    EXPECT_EQ(error.path(), path);
    EXPECT_LT(error.offset().value, size);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("free some space"), HasSubstr("kept for the next sync")));
    EXPECT_EQ(read_bytes(m, all_of(m), HostAccess::bounce), constant(size, 0x31));
    EXPECT_EQ(world.seen_by_device(m), constant(size, 0x31)) << "another kernel sees the bytes as well";
    disk.make_room();
    EXPECT_NO_THROW(m.sync());
    for (const GranuleReport& r : m.snapshot(all_of(m))) EXPECT_NE(r.place, Place::device_dirty);
  }
  EXPECT_EQ(disk.after_loss_of_power(world), constant(size, 0x31)) << "on the disk, not in the page cache";
  world.end_runtime();
}

TEST_P(Disk, what_cannot_be_delivered_in_the_end_is_named_on_stderr) {
  World world(GetParam());
  FullExt4 disk(world);
  const std::string path = disk.sparse_file(kFile);
  {
    Runtime runtime(RuntimeOptions{.devices = {{.kind = GetParam().kind,
                                                .memory = 4_MiB,
                                                .workers = 1,
                                                .without_userfaultfd = GetParam().without_userfaultfd}},
                                   .granule = ByteCount{kGranule}});
    const Mapping m = runtime.map(path, Access::read_write);
    runtime.launch({{1}, {64}, 0}, StoreEverywhere{}, aprime::write(m), Byte{0x32}).wait();
    os::sys::set_fault_plan({.call = Call::pwrite, .nth = 1, .times = 0, .error = ENOSPC});
    testing::internal::CaptureStderr();
  }
  os::sys::clear_fault_plan();
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, AllOf(HasSubstr("bytes are lost"), HasSubstr(path), HasSubstr("full")));
  EXPECT_THAT(text, Not(AnyOf(HasSubstr("kept"), HasSubstr("again")))) << "there is nothing left to sync";
}

/// An ext4 disk that really fails to write what a file has no blocks for yet: its image lies on a tmpfs
/// without room.
class FailingDisk {
 public:
  FailingDisk(World& world, std::uint64_t file_size)
      : store_(world.path_for("store")), image_(store_ + "/image"), directory_(world.path_for("mnt")) {
    enter_own_mount_namespace();
    if (::mkdir(store_.c_str(), 0700) != 0 || ::mkdir(directory_.c_str(), 0700) != 0)
      throw std::runtime_error("mkdir");
    if (::mount("tmpfs", store_.c_str(), "tmpfs", 0, "size=64m") != 0)
      throw std::runtime_error("cannot mount a tmpfs");
    make_disk_image(image_, 16 << 20);
    disk_.emplace(image_, directory_);
    { const std::ofstream created(path()); }
    plain_write(path(), 0, Bytes(file_size));
    take_store_from(file_size);
  }
  ~FailingDisk() {
    disk_.reset();
    ::umount2(store_.c_str(), MNT_DETACH);
  }
  FailingDisk(const FailingDisk&) = delete;
  FailingDisk& operator=(const FailingDisk&) = delete;

  std::string path() const { return directory_ + "/file"; }
  void start_failing() {
    struct ::statfs s {};
    ::statfs(store_.c_str(), &s);
    remount((s.f_blocks - s.f_bfree) * static_cast<std::uint64_t>(s.f_bsize));
  }
  void stop_failing() { remount(64 << 20); }
  /// What is found on the disk if power fails now.
  Bytes after_loss_of_power() {
    disk_->power_off();
    copy_disk_image(image_, store_ + "/copy");
    disk_.reset();
    disk_.emplace(store_ + "/copy", directory_);
    return plain_read(path());
  }

 private:
  /// The file keeps its blocks and the store under them goes: a write to them is what fails. (A file without
  /// blocks would not do: ext4 forgets to convert unwritten extents when a write of theirs that failed is
  /// tried again.)
  void take_store_from(std::uint64_t file_size) {
    const os::Descriptor file(::open(path().c_str(), O_RDONLY | O_CLOEXEC));
    const os::Descriptor image(::open(image_.c_str(), O_RDWR | O_CLOEXEC));
    if (::fsync(file.get()) != 0) throw std::runtime_error("fsync");
    for (std::uint64_t at = 0; at < file_size; at += kPage) {
      int block = static_cast<int>(at / kPage);
      if (::ioctl(file.get(), FIBMAP, &block) != 0 || block == 0) throw std::runtime_error("FIBMAP");
      if (::fallocate(image.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      block * static_cast<off_t>(kPage), kPage) != 0)
        throw std::runtime_error("punch");
    }
  }
  void remount(std::uint64_t size) {
    const std::string option = "size=" + std::to_string(size);
    if (::mount("tmpfs", store_.c_str(), "tmpfs", MS_REMOUNT, option.c_str()) != 0)
      throw std::runtime_error("remount");
  }

  const std::string store_;
  const std::string image_;
  const std::string directory_;
  std::optional<LoopDisk> disk_;
};

/// How bytes may have come to the page cache before fdatasync fails to write them to disk.
enum class Way : std::uint8_t { sync, migration, eviction, write, pointer };

/// The kernel calls pages clean whose writing failed, so that a second fdatasync alone would report success
/// for bytes that are nowhere.
class FailedSync : public testing::TestWithParam<std::tuple<Personality, Way>> {
 protected:
  static constexpr std::uint64_t kFile = 64 * kGranule;

  static void store(World& world, const Mapping& m, Way way) {
    constexpr std::uint64_t kPart = kFile / 4;
    if (way == Way::write) return write_bytes(m, 0, constant(kFile, 0x41), HostAccess::migrate);
    if (way == Way::pointer) {
      // One pointer is there when fdatasync fails, one is not any more.
      std::ranges::fill(m.host<std::byte>().first(kFile / 2), std::byte{0x41});
      const Mapping other = world.map(m.path());
      std::ranges::fill(other.host<std::byte>().last(kFile / 2), std::byte{0x41});
      return;
    }
    for (std::uint64_t at = 0; at < kFile; at += kPart) world.store_on_device(m, range(at, kPart), 0x41);
    if (way == Way::migration) m.prefetch_home(all_of(m));
    if (way != Way::eviction) return;
    ASSERT_GT(world.runtime().stats().evictions, 0U);
  }
};

TEST_P(FailedSync, is_told_and_its_bytes_are_written_again) {
  const auto& [personality, way] = GetParam();
  World world(personality, {.device_memory = ByteCount{way == Way::eviction ? kFile / 2 : 2 * kFile}});
  FailingDisk disk(world, kFile);
  {
    const Mapping m = world.map(disk.path());
    disk.start_failing();
    store(world, m, way);
    const Error error = error_of([&] { m.sync(); });
    EXPECT_EQ(error.code(), Errc::no_space) << error.what();
    EXPECT_EQ(error.system_error(), ENOSPC) << "the block device's reason";
    EXPECT_EQ(error.path(), disk.path());
    disk.stop_failing();
    EXPECT_NO_THROW(m.sync());
    EXPECT_EQ(read_bytes(m), constant(kFile, 0x41));
  }
  EXPECT_EQ(disk.after_loss_of_power(), constant(kFile, 0x41)) << "sync said that it is on the disk";
  world.end_runtime();
}

std::string name_of(const testing::TestParamInfo<FailedSync::ParamType>& test) {
  constexpr std::array kWays = {"sync", "migration", "eviction", "write", "pointer"};
  return std::string(std::get<0>(test.param).name) + "_" +
         kWays[static_cast<std::size_t>(std::get<1>(test.param))];
}

INSTANTIATE_TEST_SUITE_P(device, FailedSync,
                         testing::Combine(testing::ValuesIn(personalities()),
                                          testing::Values(Way::sync, Way::migration, Way::eviction,
                                                          Way::write, Way::pointer)),
                         name_of);

/// Whoever has a host lease is waited for by those who would have its granules, and so must wait for none of
/// them.
TEST_P(Disk, after_a_failed_fdatasync_whoever_has_a_host_lease_there_may_sync) {
  World world(GetParam());
  const Mapping m = world.map(world.sparse_file(kFile));
  write_bytes(m, 0, constant(kFile, 0x42));
  os::sys::set_fault_plan({.call = Call::fdatasync, .nth = 1, .times = 1, .error = EIO});
  EXPECT_EQ(code_of([&] { m.sync(); }), Errc::io);
  os::sys::clear_fault_plan();
  std::optional<HostLease> lease(m.host_lease(granules(0, 2), Right::read_write));
  std::atomic<bool> is_done{false};
  std::thread other([&] {
    EXPECT_NO_THROW(m.sync());
    is_done = true;
  });
  EXPECT_TRUE(eventually([&] { return is_done.load(); }));
  lease.reset();
  other.join();
}

/// The kernel tells one fdatasync of what failed, of whosesoever bytes.
TEST_P(Disk, a_direct_write_that_needs_an_fdatasync_keeps_its_failure_for_the_next_sync) {
  World world(GetParam());
  const std::string path = world.sparse_file(kFile);
  // Where open for direct I/O is refused: it is the second of the file.
  os::sys::set_fault_plan({.call = Call::open, .nth = 2, .times = 1, .error = EINVAL});
  const Mapping m = world.map(path);
  const Mapping other = world.map(path);
  write_bytes(m, 0, constant(kFile / 2, 0x43));
  os::sys::set_fault_plan({.call = Call::fdatasync, .nth = 1, .times = 1, .error = EIO});
  alignas(kPage) static std::array<std::byte, kGranule> buffer;
  EXPECT_EQ(code_of([&] { m.write_direct(ByteOffset{kFile / 2}, buffer); }), Errc::io);
  EXPECT_EQ(code_of([&] { m.sync(); }), Errc::io);
  EXPECT_EQ(code_of([&] { other.sync(); }), Errc::io);
  EXPECT_NO_THROW(m.sync());
  EXPECT_EQ(os::sys::calls_made(Call::fdatasync), 4u);
  os::sys::clear_fault_plan();
}

TEST_P(Disk, each_of_two_who_sync_at_once_hears_of_a_failed_fdatasync_once) {
  World world(GetParam());
  const std::string path = world.sparse_file(kFile);
  const Mapping first = world.map(path);
  const Mapping second = world.map(path);
  for (int round = 0; round < 20; ++round) {
    store_all(world, first, static_cast<Byte>(round + 1));
    os::sys::set_fault_plan({.call = Call::fdatasync, .nth = 1, .times = 1, .error = EIO});
    std::atomic<int> failed{0};
    const auto sync = [&](const Mapping& m) {
      try {
        m.sync();
      } catch (const Error&) {
        failed.fetch_add(1);
      }
    };
    std::thread other([&] { sync(second); });
    sync(first);
    other.join();
    const std::uint64_t faults = os::sys::faults_injected();
    os::sys::clear_fault_plan();
    ASSERT_EQ(faults, 1U);
    ASSERT_GE(failed.load(), 1);
    // Whoever had not heard hears now.
    sync(first);
    sync(second);
    ASSERT_EQ(failed.load(), 2) << "each holder is told once";
    EXPECT_NO_THROW(first.sync());
    EXPECT_NO_THROW(second.sync());
  }
}

}  // namespace
}  // namespace aprime::fault
