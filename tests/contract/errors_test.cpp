#include <sys/resource.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "host/os/syscalls.hpp"
#include "tests/contract/contract.hpp"
#include "tests/contract/full_disk.hpp"
#include "tests/fault/guarded_access.hpp"

// A failed writeback keeps the bytes dirty, is told to every holder at its next sync, and is never dropped.

namespace aprime::contract {
namespace {

class Errors : public Contract {
 protected:
  static constexpr std::uint64_t kFile = 16 * kGranule;

  /// Makes the device the only one that has the bytes of the whole file, without needing home.
  static void store_all(World& world, const Mapping& m, Byte value) {
    world.runtime().launch({{2}, {64}}, StoreEverywhere{}, aprime::write(m), value).wait();
  }
};
APRIME_CONTRACT_SUITE(Errors);

TEST_P(Errors, a_full_disk_is_told_by_sync_and_loses_nothing) {
  World world(GetParam());
  FullDisk disk(world.path_for("disk"));
  const std::string path = disk.sparse_file(kFile);
  const Mapping m = world.map(path);
  disk.run_full();
  store_all(world, m, 0x21);

  const Error error = error_of([&] { m.sync(); });
  EXPECT_EQ(error.code(), Errc::no_space);
  EXPECT_EQ(error.path(), path);
  EXPECT_NE(error.system_error(), 0);
  EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
  EXPECT_GT(world.runtime().stats().writeback_errors, 0);
  EXPECT_GT(world.runtime().stats().dirty_bytes, 0);
  EXPECT_LT(world.runtime().stats().dirty_bytes, kFile) << "what there was room for went home";

  EXPECT_EQ(code_of([&] { m.sync(); }), Errc::no_space) << "as long as it fails, it says so";
  EXPECT_EQ(read_bytes(m, all_of(m), HostAccess::bounce), constant(kFile, 0x21)) << "the bytes are kept";
  disk.make_room();
  EXPECT_NO_THROW(m.sync());
  EXPECT_EQ(world.runtime().stats().dirty_bytes, 0);
  EXPECT_EQ(plain_read(path), constant(kFile, 0x21));
}

TEST_P(Errors, the_limit_on_file_sizes_is_named_and_can_be_raised) {
  World world(GetParam());
  const std::string path = world.sparse_file(kFile);
  Mapping m = world.map(path);
  store_all(world, m, 0x29);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  void (*const handler)(int) = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit low{kFile / 2, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &low), 0);
  const Error sync = error_of([&] { m.sync(); });
  const Error resize = error_of([&] { m.resize(ByteCount{2 * kFile}); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);

  for (const Error& error : {sync, resize}) {
    EXPECT_EQ(error.code(), Errc::no_space);
    EXPECT_EQ(error.system_error(), EFBIG);
    EXPECT_NE(std::string(error.what()).find("ulimit -f"), std::string::npos) << error.what();
  }
  EXPECT_NO_THROW(m.sync());
  EXPECT_EQ(plain_read(path), constant(kFile, 0x29));
}

TEST_P(Errors, every_holder_hears_of_a_failed_writeback_once) {
  World world(GetParam());
  FullDisk disk(world.path_for("disk"));
  const std::string path = disk.sparse_file(kFile);
  const Mapping first = world.map(path);
  const Mapping second = world.map(path);
  const Mapping reader = world.map(path, Access::read);
  disk.run_full();
  store_all(world, first, 0x22);
  EXPECT_EQ(code_of([&] { first.sync(); }), Errc::no_space);
  disk.make_room();
  EXPECT_NO_THROW(first.sync()) << "it has heard";
  EXPECT_EQ(code_of([&] { second.sync(); }), Errc::no_space);
  EXPECT_EQ(code_of([&] { reader.sync(); }), Errc::no_space);
  EXPECT_NO_THROW(second.sync());
  EXPECT_NO_THROW(reader.sync());
  const Mapping late = world.map(path);
  EXPECT_NO_THROW(late.sync()) << "nothing was lost before its time";
  EXPECT_EQ(plain_read(path), constant(kFile, 0x22));
}

TEST_P(Errors, a_background_failure_is_told_by_the_next_sync) {
  World world(GetParam(), {.dirty_age_max = std::chrono::milliseconds(20)});
  FullDisk disk(world.path_for("disk"));
  const std::string path = disk.sparse_file(kFile);
  const Mapping first = world.map(path);
  const Mapping second = world.map(path);
  disk.run_full();
  store_all(world, first, 0x23);
  ASSERT_TRUE(eventually([&] { return world.runtime().stats().writeback_errors > 0; }));
  disk.make_room();
  ASSERT_TRUE(eventually([&] { return world.runtime().stats().dirty_bytes == 0; })) << "it is tried again";
  EXPECT_EQ(code_of([&] { first.sync(); }), Errc::no_space) << "although all is well by now";
  EXPECT_EQ(code_of([&] { second.sync(); }), Errc::no_space);
  EXPECT_NO_THROW(first.sync());
  EXPECT_NO_THROW(second.sync());
  EXPECT_EQ(plain_read(path), constant(kFile, 0x23));
}

TEST_P(Errors, calls_that_migrate_fail_and_calls_that_bounce_do_not) {
  World world(GetParam());
  FullDisk disk(world.path_for("disk"));
  const Mapping m = world.map(disk.sparse_file(kFile));
  disk.run_full();
  store_all(world, m, 0x24);
  EXPECT_EQ(code_of([&] { read_bytes(m); }), Errc::no_space);
  EXPECT_EQ(code_of([&] { m.prefetch_home(all_of(m)); }), Errc::no_space);
  EXPECT_EQ(code_of([&] { m.host_lease(all_of(m), Right::read); }), Errc::no_space);
  EXPECT_EQ(code_of([&] { write_bytes(m, kFile - 10, constant(5, 1), HostAccess::migrate); }),
            Errc::no_space);
  write_bytes(m, kFile - 10, constant(5, 2), HostAccess::bounce);
  const Bytes now = with(constant(kFile, 0x24), kFile - 10, 5, 2);
  EXPECT_EQ(read_bytes(m, all_of(m), HostAccess::bounce), now);
  EXPECT_EQ(world.seen_by_device(m), now) << "each failure left every granule in a state that works";
  disk.make_room();
  EXPECT_EQ(read_bytes(m), now);
}

TEST_P(Errors, eviction_to_a_full_disk_stops_the_launch_and_keeps_the_bytes) {
  World world(GetParam(), {.device_memory = ByteCount{2 * kFile}});
  FullDisk disk(world.path_for("disk"));
  const std::string path = disk.sparse_file(4 * kFile);
  const Mapping m = world.map(path);
  const Mapping other = world.map_new(pattern(kFile));
  disk.run_full_at_once();
  const ByteRange stuck = range(FullDisk::kRoom, 2 * kFile);
  world.runtime().launch({{2}, {64}}, StoreEverywhere{}, aprime::write(m, stuck), Byte{0x25}).wait();
  // All of device memory is in use, and what is there has nowhere to go.
  const Error error = error_of([&] { world.increment_on_device(other, all_of(other)); });
  EXPECT_EQ(error.code(), Errc::no_space) << error.what();
  EXPECT_EQ(read_bytes(m, stuck, HostAccess::bounce), constant(2 * kFile, 0x25));
  EXPECT_EQ(read_bytes(other), pattern(kFile));
  disk.make_room();
  EXPECT_NO_THROW(world.increment_on_device(other, all_of(other)));
  EXPECT_EQ(code_of([&] { m.sync(); }), Errc::no_space) << "what failed in the meantime is told";
  EXPECT_NO_THROW(m.sync());
  EXPECT_EQ(plain_read(path, stuck), constant(2 * kFile, 0x25));
  EXPECT_EQ(read_bytes(other), incremented(pattern(kFile)));
}

TEST_P(Errors, closing_reports_what_could_not_be_copied_home_and_keeps_it) {
  World world(GetParam());
  FullDisk disk(world.path_for("disk"));
  const std::string path = disk.sparse_file(kFile);
  Mapping m = world.map(path);
  disk.run_full();
  store_all(world, m, 0x26);
  EXPECT_EQ(code_of([&] { m.close(); }), Errc::no_space);
  {
    const Mapping again = world.map(path);
    EXPECT_EQ(read_bytes(again, all_of(again), HostAccess::bounce), constant(kFile, 0x26));
  }
  EXPECT_EQ(code_of([&] { world.runtime().close(); }), Errc::no_space);
  disk.make_room();
  EXPECT_NO_THROW(world.runtime().close());
  EXPECT_EQ(plain_read(path), constant(kFile, 0x26));
}

TEST_P(Errors, a_file_that_nobody_has_any_more_goes_when_its_bytes_can_come_home) {
  enum class Moment { flusher, end_of_another, other_granule };
  for (const Moment moment : {Moment::flusher, Moment::end_of_another, Moment::other_granule}) {
    SCOPED_TRACE(static_cast<int>(moment));
    World world(GetParam(), {.dirty_age_max = std::chrono::milliseconds(moment == Moment::flusher ? 20 : 0)});
    FullDisk disk(world.path_for("disk"));
    const std::string path = disk.sparse_file(kFile);
    Mapping m = world.map(path);
    disk.run_full();
    store_all(world, m, 0x28);
    m = Mapping();
    EXPECT_GT(world.runtime().stats().dirty_bytes, 0u);
    disk.make_room();
    if (moment == Moment::end_of_another) world.map_new(pattern(kPage));
    if (moment == Moment::other_granule)
      m = world.runtime().map(path, Access::read, {.granule = ByteCount{2 * kGranule}});
    EXPECT_TRUE(eventually([&] { return world.runtime().stats().resident_bytes == 0; }));
    EXPECT_EQ(plain_read(path), constant(kFile, 0x28));
  }
}

TEST_P(Errors, a_failed_fdatasync_is_made_good_before_its_file_goes) {
  World world(GetParam());
  const std::string path = world.file(pattern(kFile));
  {
    const Mapping m = world.map(path);
    world.increment_on_device(m, all_of(m));
    os::sys::set_fault_plan({.call = os::sys::Call::fdatasync, .nth = 1, .times = 1, .error = EIO});
    EXPECT_EQ(code_of([&] { m.sync(); }), Errc::io);
  }
  // The kernel calls the pages clean since: whoever syncs next would be told so.
  EXPECT_EQ(os::sys::calls_made(os::sys::Call::fdatasync), 2u);
  os::sys::clear_fault_plan();
  EXPECT_EQ(plain_read(path), incremented(pattern(kFile)));
}

TEST_P(Errors, a_pointer_to_bytes_that_cannot_come_home_is_a_bus_error) {
  const auto test = [&] {
    World world(GetParam());
    FullDisk disk(world.path_for("disk"));
    const Mapping m = world.map(disk.sparse_file(kFile));
    const auto host = m.host<std::byte>();
    disk.run_full();
    store_all(world, m, 0x27);
    EXPECT_THROW(m.sync(), Error);
    std::uint64_t stuck = 0;
    while (stuck + 1 < kFile / kGranule && report(m, stuck).place == Place::shared) ++stuck;
    ASSERT_EQ(report(m, stuck).place, Place::device_dirty);
    std::byte seen{};
    EXPECT_FALSE(fault::copy_guarded(&seen, &host[stuck * kGranule], 1));
    disk.make_room();
    EXPECT_TRUE(fault::copy_guarded(&seen, &host[stuck * kGranule], 1));
    EXPECT_EQ(seen, std::byte{0x27});
  };
  // A process that has had no runtime before it catches SIGBUS.
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        fault::catch_bus_errors();
        test();
        std::_Exit(HasFailure() ? 1 : 0);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace aprime::contract
