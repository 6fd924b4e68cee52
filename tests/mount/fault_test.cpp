// What programs on a mount are told when something fails while a device has their bytes, and that nothing is
// lost.

#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <cerrno>
#include <filesystem>

#include "host/os/syscalls.hpp"
#include "tests/mount/mounted.hpp"

namespace aprime {
namespace {

using namespace test;
using os::sys::Call;

std::string failure(int error) { return fmt::format("errno {}", error); }

/// While it lives, system calls of this process fail; the programs' own do not.
class Failing {
 public:
  Failing(Call call, int error, std::uint64_t times = 0) {
    os::sys::set_fault_plan({.call = call, .nth = 1, .times = times, .error = error});
  }
  ~Failing() { os::sys::clear_fault_plan(); }
  Failing(const Failing&) = delete;
  Failing& operator=(const Failing&) = delete;
};

class MountFaults : public testing::TestWithParam<DeviceKind> {
 protected:
  MountFaults() {
    mounted_.make("file", std::string(kSize, 'h'));
    mapping_ = mounted_.map("file");
    client_.must("open " + mounted_.at("file"));
  }
  ~MountFaults() override { mapping_ = Mapping(); }

  Mounted mounted_{GetParam(), HostAccess::bounce};
  Mapping mapping_;
  Client client_;
};

TEST_P(MountFaults, failed_writeback_is_told_to_every_program_once_and_keeps_the_bytes) {
  Client other;
  other.must("open " + mounted_.at("file"));
  mounted_.device_stores(mapping_, kWhole, 1);
  {
    const Failing failing(Call::pwrite, EIO);
    EXPECT_EQ(client_.ask("fsync"), failure(EIO));
    EXPECT_EQ(client_.bytes("read 100 50"), all(50, 1));
    EXPECT_EQ(mounted_.content("file"), std::string(kSize, 'h'));
  }
  EXPECT_EQ(other.ask("fsync"), failure(EIO));  // it succeeds now, but this one has not heard of the failure
  other.must("fsync");
  EXPECT_EQ(mounted_.content("file"), std::string(kSize, '\1'));
}

TEST_P(MountFaults, failure_of_a_files_second_life_is_told_to_who_heard_of_one_in_the_first) {
  for (unsigned char value = 1; value <= 2; ++value) {
    mounted_.device_stores(mapping_, kWhole, value);
    {
      const Failing failing(Call::pwrite, EIO);
      EXPECT_THROW(mapping_.sync(), Error);
    }
    EXPECT_EQ(client_.ask("fsync"), failure(EIO)) << int{value};
    client_.must("fsync");
    mapping_ = Mapping();
    mapping_ = mounted_.map("file");
  }
}

TEST_P(MountFaults, failed_fdatasync_is_told_and_its_bytes_are_written_again) {
  client_.must("write 0 5000 1");
  mounted_.device_stores(mapping_, bytes(kGranule, kGranule), 2);
  {
    const Failing failing(Call::fdatasync, EIO, 1);
    EXPECT_EQ(client_.ask("fsync"), failure(EIO));
  }
  client_.must("fsync");
  EXPECT_EQ(mounted_.content("file").substr(kGranule, kGranule), std::string(kGranule, '\2'));
}

// It is told of what the kernel could not write by itself.
TEST_P(MountFaults, programs_own_descriptor_is_synced_too) {
  os::sys::set_fault_plan({.call = Call::fdatasync, .nth = 2, .error = EIO});
  EXPECT_EQ(client_.ask("fdatasync"), failure(EIO));
  os::sys::clear_fault_plan();
  client_.must("fdatasync");
}

TEST_P(MountFaults, write_that_shall_be_on_the_disk_fails_if_it_is_not) {
  mounted_.device_stores(mapping_, kWhole, 1);
  for (const std::string command : {"write", "write_data_sync"}) {
    client_.must((command == "write" ? "open_data_sync " : "open ") + mounted_.at("file"));
    {
      const Failing failing(Call::fdatasync, EIO, 1);
      EXPECT_EQ(client_.ask(command + " 100 50 2"), failure(EIO)) << command;
    }
    {
      const Failing failing(Call::pwrite, ENOSPC);
      EXPECT_EQ(client_.ask(command + " 100 50 2"), failure(ENOSPC)) << command;
    }
    client_.must(command + " 100 50 3");
    EXPECT_EQ(mounted_.content("file").substr(100, 50), std::string(50, '\3')) << command;
    mounted_.device_stores(mapping_, kWhole, 1);
  }
}

TEST_P(MountFaults, page_that_cannot_be_written_home_stays_on_the_device) {
  mounted_.device_stores(mapping_, kWhole, 1);
  {
    const Failing failing(Call::pwrite, ENOSPC);
    EXPECT_EQ(client_.ask("write 100 50 2"), "ok");  // bounced
    client_.must("open_direct " + mounted_.at("file"));
    EXPECT_EQ(client_.ask("read 4096 4096"), failure(ENOSPC));  // goes by the disk (rule 9)
  }
  EXPECT_EQ(client_.bytes("read 4096 4096"), all(4096, 1));
  EXPECT_EQ(mounted_.device_misses(mapping_, bytes(100, 50), 2), 0u);
}

TEST_P(MountFaults, write_that_fails_leaves_the_file_as_it_was) {
  {
    const Failing failing(Call::pwrite, ENOSPC);
    EXPECT_EQ(client_.ask(fmt::format("write {} 5000 1", kSize)), failure(ENOSPC));
    EXPECT_EQ(client_.ask("write 100 50 1"), failure(ENOSPC));
  }
  EXPECT_EQ(client_.ask("size"), fmt::format("ok {}", kSize));
  EXPECT_EQ(client_.bytes("read 100 50"), all(50, 'h'));
  {
    const Failing failing(Call::ftruncate, EIO);
    EXPECT_EQ(client_.ask("truncate 100"), failure(EIO));
    EXPECT_EQ(client_.ask(fmt::format("write {} 5000 1", kSize)), failure(EIO));
  }
  EXPECT_EQ(mounted_.device_misses(mapping_, kWhole, 'h'), 0u);
}

TEST_P(MountFaults, size_for_which_there_is_no_memory_is_told_as_that) {
  if (GetParam() != DeviceKind::emulated) return;  // the other one's tables are small
  EXPECT_EQ(client_.ask(fmt::format("truncate {}", std::uint64_t{10} << 40)), failure(ENOMEM));
  EXPECT_EQ(client_.ask("size"), fmt::format("ok {}", kSize));
}

TEST_P(MountFaults, read_that_fails_is_told_and_the_next_one_is_right) {
  {
    const Failing failing(Call::pread, EIO);
    EXPECT_EQ(client_.ask("read 100 50"), failure(EIO));
  }
  EXPECT_EQ(client_.bytes("read 100 50"), all(50, 'h'));
  mounted_.device_stores(mapping_, kWhole, 1);
  EXPECT_EQ(client_.bytes("read 100 50"), all(50, 1));
}

// The page cannot be given to the program that stores to it (SIGBUS), and it is not lost for others.
TEST_P(MountFaults, page_that_cannot_be_read_kills_who_touches_it_and_nobody_else) {
  client_.must("map_random");
  {
    const Failing failing(Call::pread, EIO);
    EXPECT_EQ(client_.ask("load 100 50"), "");  // it has no handler
  }
  Client other;
  other.must("open " + mounted_.at("file"));
  other.must("map");
  EXPECT_EQ(other.bytes("load 100 50"), all(50, 'h'));
}

// Pages that are moved and not copied: where one cannot be had they are copied, and the answer is no short
// one, which to the kernel is the end of the file.
TEST_P(MountFaults, pages_that_cannot_be_moved_are_copied_and_end_no_file) {
  constexpr std::size_t kLarge = 300'000;
  mounted_.make("mapped", std::string(kLarge, 'x'));
  const Mapping mapped = mounted_.map("mapped");
  for (const std::uint64_t nth : {1, 2, 3}) {
    const std::string plain = fmt::format("plain{}", nth);
    mounted_.make(plain, std::string(kLarge, 'x'));
    Client reader, mapper;
    reader.must("open_reading " + mounted_.at(plain));
    mapper.must("open " + mounted_.at("mapped"));
    mapper.must("map");
    os::sys::set_fault_plan({.call = Call::splice, .nth = nth, .times = 0, .error = EIO});
    EXPECT_TRUE(reader.bytes("read 0 300000") == all(kLarge, 'x'));  // not shown: they are long
    EXPECT_TRUE(mapper.bytes("load 0 300000") == all(kLarge, 'x'));
    os::sys::clear_fault_plan();
    EXPECT_GT(os::sys::faults_injected(), 0u);
    EXPECT_EQ(reader.ask("size"), "ok 300000");
    mounted_.device_stores(mapped, {ByteOffset{0}, ByteCount{kLarge}}, 'x');  // takes the pages
  }
}

// As on other file systems: the kernel has given the page up by then.
TEST_P(MountFaults, page_that_cannot_be_written_is_told_by_msync) {
  client_.must("map");
  client_.must("store 0 4096 1");
  {
    const Failing failing(Call::pwrite, ENOSPC);
    EXPECT_EQ(client_.ask("msync"), failure(ENOSPC));
  }
  client_.must("store 0 4096 2");
  client_.must("msync");
  EXPECT_EQ(mounted_.content("file").substr(0, 4096), std::string(4096, '\2'));
}

TEST_P(MountFaults, without_descriptors_open_files_go_on) {
  ::rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  ::rlimit none = before;
  none.rlim_cur = 3;
  mounted_.make("other", "text");
  mounted_.device_stores(mapping_, kWhole, 1);
  Client other;
  ::setrlimit(RLIMIT_NOFILE, &none);
  EXPECT_EQ(other.ask("open " + mounted_.at("other")), failure(EMFILE));
  client_.must("write 100 50 2");
  EXPECT_EQ(client_.bytes("read 99 3"), all(1, 1) + all(2, 2));
  client_.must("map");
  EXPECT_EQ(client_.bytes("load 149 2"), all(1, 2) + all(1, 1));
  client_.must("fsync");
  ::setrlimit(RLIMIT_NOFILE, &before);
  other.must("open " + mounted_.at("other"));
  EXPECT_EQ(mounted_.device_misses(mapping_, bytes(150, 1000), 1), 0u);
}

INSTANTIATE_TEST_SUITE_P(Each, MountFaults,
                         testing::Values(DeviceKind::emulated, DeviceKind::emulated_strict),
                         test::name_of_kind);

TEST(MountFault, device_memory_that_is_exhausted_is_the_launchs_matter) {
  Mounted mounted(DeviceKind::emulated_strict, HostAccess::bounce, ByteCount{16 * kGranule});
  mounted.make("large", std::string(32 * kGranule, 'h'));
  Mapping mapping = mounted.map("large");
  Client client;
  client.must("open " + mounted.at("large"));
  client.must("map");
  client.must("store 0 524288 1");
  mounted.device_stores(mapping, kWhole, 2);
  try {
    mounted.device_stores(mapping, {ByteOffset{0}, mapping.size_bytes()}, 3);
    FAIL() << "it fitted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Errc::device_memory);
  }
  EXPECT_EQ(client.bytes("load 0 50"), all(50, 2));
  EXPECT_EQ(client.bytes(fmt::format("read {} 50", kSize)), all(50, 1));
  client.must("store 0 524288 4");
  EXPECT_EQ(mounted.device_misses(mapping, kWhole, 4), 0u);
}

/// A source that has less room than the file in it has bytes to be stored.
class SmallSource {
 public:
  explicit SmallSource(const Mounted& mounted) : at_(mounted.plain("small")) {
    std::filesystem::create_directory(at_);
    if (::mount("tmpfs", at_.c_str(), "tmpfs", 0, fmt::format("size={}", kSize).c_str()) != 0)
      throw std::runtime_error("no tmpfs");
  }
  ~SmallSource() { ::umount2(at_.c_str(), MNT_DETACH); }
  SmallSource(const SmallSource&) = delete;
  SmallSource& operator=(const SmallSource&) = delete;
  void make_room() const {
    ::mount("tmpfs", at_.c_str(), "tmpfs", MS_REMOUNT, fmt::format("size={}", 4 * kSize).c_str());
  }

 private:
  const std::string at_;
};

TEST(MountFault, full_source_is_told_and_has_everything_once_there_is_room) {
  Mounted mounted(DeviceKind::emulated, HostAccess::bounce);
  const SmallSource source(mounted);
  mounted.make("small/file", "");
  std::filesystem::resize_file(mounted.plain("small/file"), 2 * kSize);
  Mapping mapping = mounted.map("small/file");
  Client client;
  client.must("open " + mounted.at("small/file"));
  mounted.device_stores(mapping, bytes(0, 2 * kSize), 1);
  EXPECT_EQ(client.ask("fsync"), failure(ENOSPC));
  EXPECT_EQ(client.bytes(fmt::format("read {} 50", 2 * kSize - 50)), all(50, 1));
  source.make_room();
  client.must("fsync");
  EXPECT_EQ(mounted.content("small/file"), std::string(2 * kSize, '\1'));
  mapping = Mapping();
}

}  // namespace
}  // namespace aprime
