#include <sys/stat.h>

#include <atomic>
#include <cstdlib>
#include <optional>
#include <thread>

#include "tests/contract/contract.hpp"
#include "tests/fault/guarded_access.hpp"

// The end of the file: tails, growing, shrinking, holes, and files that others truncate.

namespace aprime::contract {
namespace {

using Size = Contract;
APRIME_CONTRACT_SUITE(Size);

/// One byte that a kernel loads `distance` bytes from the start of the mapping, with a lease on all of it.
Byte loaded_at(World& world, const Mapping& m, std::uint64_t distance) {
  const Mapping result = world.map_new(Bytes(kGranule, std::byte{0xdd}));
  world.runtime()
      .launch({{1}, {1}}, LoadAt{}, aprime::read(m), static_cast<std::ptrdiff_t>(distance),
              aprime::read_write(result))
      .wait();
  return std::to_integer<Byte>(read_bytes(result, range(0, 1)).front());
}

TEST_P(Size, a_file_of_any_length_is_seen_exactly) {
  World world(GetParam());
  for (const std::size_t size : {std::size_t{1}, std::size_t{kPage - 1}, std::size_t{kPage + 1},
                                 std::size_t{kGranule}, std::size_t{2 * kGranule + 100},
                                 std::size_t{2 * kGranule + 2 * kPage}, std::size_t{3 * kGranule - 1}}) {
    const std::string path = world.file(pattern(size));
    Mapping m = world.map(path);
    ASSERT_EQ(m.size_bytes().value, size);
    EXPECT_EQ(world.seen_by_device(m), pattern(size));
    world.increment_on_device(m, all_of(m));
    EXPECT_EQ(read_bytes(m), incremented(pattern(size)));
    world.increment_on_device(m, all_of(m));
    m.close();
    EXPECT_EQ(plain_size(path), size);
    EXPECT_EQ(plain_read(path), incremented(incremented(pattern(size))));
  }
}

TEST_P(Size, a_kernel_sees_zeros_beyond_the_end_in_the_last_granule) {
  World world(GetParam());
  for (const std::uint64_t size : {std::uint64_t{100}, kGranule + kPage, kGranule + kPage + 1}) {
    const Mapping m = world.map_new(pattern(static_cast<std::size_t>(size)));
    for (const std::uint64_t beyond : {std::uint64_t{0}, std::uint64_t{50}, kPage + 3})
      EXPECT_EQ(loaded_at(world, m, size + beyond), 0) << size << " + " << beyond;
  }
}

TEST_P(Size, stores_beyond_the_end_never_reach_the_file) {
  World world(GetParam());
  constexpr std::uint64_t kSize = kGranule + kPage + 100;
  const std::string path = world.file(pattern(kSize));
  Mapping m = world.map(path);
  for (const std::uint64_t beyond : {std::uint64_t{0}, std::uint64_t{1000}, kPage + 5})
    world.runtime()
        .launch({{1}, {1}}, StoreAt{}, aprime::read_write(m), static_cast<std::ptrdiff_t>(kSize + beyond),
                Byte{0x99})
        .wait();
  m.sync();
  EXPECT_EQ(plain_size(path), kSize);
  EXPECT_EQ(plain_read(path), pattern(kSize));
  m.resize(ByteCount{2 * kGranule});
  Bytes grown = pattern(kSize);
  grown.resize(2 * kGranule);
  EXPECT_EQ(read_bytes(m), grown) << "nor come up when it grows";
  EXPECT_EQ(world.seen_by_device(m), grown);
  EXPECT_EQ(seen_by_pointer(m, all_of(m)), grown);
}

TEST_P(Size, an_empty_file_can_be_mapped_and_grown) {
  World world(GetParam());
  const std::string path = world.file({});
  Mapping m = world.map(path);
  EXPECT_EQ(m.size_bytes().value, 0);
  EXPECT_TRUE(m.host<std::byte>().empty());
  EXPECT_TRUE(m.snapshot(all_of(m)).empty());
  EXPECT_TRUE(read_bytes(m).empty());
  EXPECT_NO_THROW(m.sync());
  EXPECT_NO_THROW(m.discard(all_of(m)));
  EXPECT_NO_THROW(world.store_on_device(m, all_of(m), 1)) << "a lease of nothing";
  EXPECT_TRUE(m.host_lease(all_of(m), Right::read).bytes().empty());

  m.resize(ByteCount{kGranule + 10});
  EXPECT_EQ(plain_size(path), kGranule + 10);
  EXPECT_EQ(world.seen_by_device(m), Bytes(kGranule + 10));
  world.store_on_device(m, all_of(m), 0x12);
  EXPECT_EQ(seen_by_pointer(m, all_of(m)), constant(kGranule + 10, 0x12));
  m.resize(ByteCount{0});
  EXPECT_EQ(plain_size(path), 0);
}

TEST_P(Size, growing_keeps_pointers_and_device_bytes) {
  World world(GetParam());
  const std::string path = world.file(pattern(kGranule + 10));
  Mapping m = world.map(path);
  const auto* const host = m.host<std::byte>().data();
  Bytes expected = pattern(kGranule + 10);
  for (const std::size_t size :
       {std::size_t{kGranule + 20}, std::size_t{3 * kGranule}, std::size_t{40 * kGranule + 5}}) {
    world.increment_on_device(m, all_of(m));
    expected = incremented(std::move(expected));
    m.resize(ByteCount{size});
    expected.resize(size);
    EXPECT_EQ(m.host<std::byte>().data(), host);
    EXPECT_EQ(world.seen_by_device(m), expected) << size;
    EXPECT_EQ(seen_by_pointer(m, all_of(m)), expected) << size;
  }
  m.sync();
  EXPECT_EQ(plain_read(path), expected);
}

TEST_P(Size, shrinking_takes_device_copies_with_it) {
  World world(GetParam());
  const std::string path = world.file(pattern(8 * kGranule));
  Mapping m = world.map(path);
  world.store_on_device(m, all_of(m), 0x13);
  const Delta delta(world);
  m.resize(ByteCount{2 * kGranule + 1});
  EXPECT_LE(delta.get().granules_copied_back, 1) << "only the granule that is cut";
  EXPECT_EQ(report(m, 0).place, Place::device);
  EXPECT_EQ(static_cast<std::int64_t>(delta.get().dirty_bytes), -6 * static_cast<std::int64_t>(kGranule));
  EXPECT_EQ(static_cast<std::int64_t>(delta.get().resident_bytes), -6 * static_cast<std::int64_t>(kGranule));
  EXPECT_EQ(read_bytes(m), constant(2 * kGranule + 1, 0x13));
  EXPECT_EQ(plain_size(path), 2 * kGranule + 1);
}

TEST_P(Size, a_shrink_that_ends_late_takes_nothing_that_came_after_the_file_had_grown_again) {
  World world(GetParam());
  const std::string path = world.file(pattern(4 * kGranule));
  const Mapping m = world.map(path);
  Mapping other = world.map(path);
  world.touch_on_device(m, granules(1));
  world.store_on_device(m, granules(2, 2), 0x11);
  std::optional<HostLease> lease = m.host_lease(granules(1), Right::read);
  std::thread shrinks([&] { other.resize(ByteCount{kGranule}); });
  EXPECT_TRUE(eventually([&] { return plain_size(path) == kGranule; }));
  // It waits for the lease now, and has the others yet to forget.
  plain_truncate(path, 4 * kGranule);
  world.store_on_device(m, granules(2, 2), 0x22);
  lease.reset();
  shrinks.join();
  EXPECT_EQ(world.seen_by_device(m, granules(2, 2)), constant(2 * kGranule, 0x22));
}

// As a log is: another process has it open, and adds to it.
TEST_P(Size, what_a_file_gains_by_its_plain_path_is_not_overwritten_by_what_comes_home) {
  World world(GetParam());
  constexpr std::uint64_t kEnd = kGranule + 5000;
  const std::string path = world.file(pattern(kEnd));
  const Mapping m = world.map(path);
  world.store_on_device(m, all_of(m), 0x31);
  plain_write(path, kEnd, constant(1000, 0x32));
  m.sync();
  EXPECT_EQ(plain_read(path), with(constant(kEnd + 1000, 0x31), kEnd, 1000, 0x32));
  EXPECT_EQ(world.seen_by_device(m), constant(kEnd, 0x31));
}

TEST_P(Size, what_a_file_has_gained_by_its_plain_path_is_seen_by_who_maps_it_then) {
  for (const bool is_dirty : {false, true}) {
    World world(GetParam());
    constexpr std::uint64_t kEnd = kGranule + 5000;
    const std::string path = world.file(constant(kEnd, 0x31));
    const Mapping m = world.map(path);
    if (is_dirty)
      world.store_on_device(m, all_of(m), 0x31);
    else
      m.prefetch(all_of(m), 0, Right::read);
    plain_write(path, kEnd, constant(2 * kGranule, 0x32));
    const Bytes expected = with(constant(kEnd + 2 * kGranule, 0x31), kEnd, 2 * kGranule, 0x32);
    const Mapping longer = world.map(path);
    EXPECT_EQ(world.seen_by_device(longer), expected);
    world.increment_on_device(longer, all_of(longer));
    EXPECT_EQ(world.seen_by_device(m), incremented(constant(kEnd, 0x31)));
    longer.sync();
    EXPECT_EQ(plain_read(path), incremented(expected));
  }
}

TEST_P(Size, what_is_stored_to_a_file_that_was_cut_and_grew_again_stays) {
  World world(GetParam());
  const std::string path = world.file(pattern(4 * kGranule));
  const Mapping m = world.map(path);
  Mapping other = world.map(path);
  constexpr std::uint64_t kCut = kGranule + 5000;
  other.resize(ByteCount{kCut});
  plain_truncate(path, 4 * kGranule);
  for (const HostAccess how : {HostAccess::bounce, HostAccess::migrate}) {
    // The second granule is that in which the file ended.
    world.store_on_device(m, all_of(m), 0x41);
    const Bytes some = constant(100, 0x42);
    m.write(ByteOffset{kCut + 1000}, some, how);
    m.write(ByteOffset{3 * kGranule}, some, how);
    const Bytes expected =
        with(with(constant(4 * kGranule, 0x41), kCut + 1000, 100, 0x42), 3 * kGranule, 100, 0x42);
    EXPECT_EQ(world.seen_by_device(m), expected);
    m.sync();
    EXPECT_EQ(plain_read(path), expected);
    EXPECT_EQ(read_bytes(m), expected);
  }
}

TEST_P(Size, what_a_file_gains_after_its_plain_path_has_cut_it_stays_and_is_seen) {
  World world(GetParam());
  const std::string path = world.file(pattern(2 * kGranule - 100));
  const Mapping whole = world.map(path);
  constexpr std::uint64_t kCut = kGranule + 5000;
  plain_truncate(path, kCut);
  const Mapping shorter = world.map(path);
  world.store_on_device(shorter, all_of(shorter), 0x31);
  plain_write(path, kCut, constant(1000, 0x32));
  shorter.sync();
  const Bytes expected = with(constant(kCut + 1000, 0x31), kCut, 1000, 0x32);
  EXPECT_EQ(plain_read(path), expected);
  const Mapping longer = world.map(path);
  EXPECT_EQ(world.seen_by_device(longer), expected);
}

TEST_P(Size, a_file_that_outgrows_what_is_known_of_it_is_told_so) {
  World world(GetParam(), {.granule = ByteCount{kPage}});
  const std::string path = world.sparse_file(std::uint64_t{1} << 20);
  Mapping m = world.map(path);
  for (const std::uint64_t size : {(std::uint64_t{300} << 20) + 1, (std::uint64_t{300} << 20) + 2}) {
    plain_truncate(path, size);
    EXPECT_EQ(code_of([&] { m.resize(ByteCount{2 << 20}); }), Errc::invalid_argument);
  }
  EXPECT_EQ(read_bytes(world.map(path), range(std::uint64_t{300} << 20, 2)), constant(2, 0));
}

TEST_P(Size, a_size_that_no_file_can_have_is_refused_and_changes_nothing) {
  World world(GetParam());
  const std::string path = world.file(pattern(4 * kGranule));
  Mapping whole = world.map(path);
  Mapping tail = world.runtime().map(path, Access::read_write, {.offset = ByteOffset{2 * kGranule}});
  constexpr std::uint64_t kMost = ~std::uint64_t{0};
  for (const std::uint64_t size : {kMost, kMost - 2 * kGranule + 1, kMost / 2 - kGranule, kMost / 2 + 1})
    EXPECT_EQ(code_of([&] { tail.resize(ByteCount{size}); }), Errc::invalid_argument) << size;
  EXPECT_EQ(code_of([&] { whole.resize(ByteCount{kMost}); }), Errc::invalid_argument);
  EXPECT_EQ(plain_read(path), pattern(4 * kGranule));
  EXPECT_EQ(tail.size_bytes(), ByteCount{2 * kGranule});
}

TEST_P(Size, only_a_mapping_that_reaches_the_end_can_be_resized) {
  World world(GetParam());
  const std::string path = world.file(pattern(4 * kGranule));
  Mapping head = world.runtime().map(path, Access::read_write, {.length = ByteCount{kGranule}});
  EXPECT_EQ(code_of([&] { head.resize(ByteCount{2 * kGranule}); }), Errc::invalid_argument);
  Mapping tail = world.runtime().map(path, Access::read_write, {.offset = ByteOffset{2 * kGranule}});
  tail.resize(ByteCount{3 * kGranule});
  EXPECT_EQ(plain_size(path), 5 * kGranule);
  EXPECT_EQ(part(read_bytes(tail), 2 * kGranule, kGranule), Bytes(kGranule));
  Mapping reader = world.map(path, Access::read);
  EXPECT_EQ(code_of([&] { reader.resize(1_KiB); }), Errc::access_denied);
  Mapping whole = world.map(path);
  const Error error = error_of([&] { whole.resize(ByteCount{std::uint64_t{1} << 62}); });
  EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
  EXPECT_NE(std::string(error.what()).find("4611686018427387904"), std::string::npos) << error.what();
  EXPECT_EQ(error.path(), path);
  EXPECT_EQ(plain_size(path), 5 * kGranule);
  EXPECT_EQ(part(read_bytes(whole), 0, kGranule), part(pattern(4 * kGranule), 0, kGranule))
      << "nothing has changed";
}

TEST_P(Size, discard_frees_disk_space_and_device_memory) {
  World world(GetParam());
  const std::string path = world.file(pattern(8 * kGranule));
  const Mapping m = world.map(path);
  const auto host = m.host<const std::byte>();
  world.store_on_device(m, all_of(m), 0x14);
  m.sync();
  struct stat before {};
  ASSERT_EQ(::stat(path.c_str(), &before), 0);
  world.store_on_device(m, all_of(m), 0x15);

  const Delta delta(world);
  m.discard(granules(2, 4));
  EXPECT_EQ(delta.get().granules_copied_back, 0) << "nobody will read what is thrown away";
  for (std::uint64_t g = 2; g < 6; ++g) EXPECT_EQ(report(m, g).devices, 0) << g;
  EXPECT_EQ(report(m, 1).place, Place::device);
  EXPECT_EQ(report(m, 6).place, Place::device);
  struct stat after {};
  ASSERT_EQ(::stat(path.c_str(), &after), 0);
  EXPECT_LT(after.st_blocks, before.st_blocks);
  EXPECT_EQ(after.st_size, before.st_size);
  EXPECT_EQ(host[2 * kGranule], std::byte{0});
  EXPECT_EQ(world.seen_by_device(m), with(constant(8 * kGranule, 0x15), 2 * kGranule, 4 * kGranule, 0));

  m.discard(range(6 * kGranule + 10, 100));
  m.discard(range(kGranule - 5, 10));
  Bytes expected = with(constant(8 * kGranule, 0x15), 2 * kGranule, 4 * kGranule, 0);
  expected = with(std::move(expected), 6 * kGranule + 10, 100, 0);
  expected = with(std::move(expected), kGranule - 5, 10, 0);
  EXPECT_EQ(read_bytes(m), expected) << "parts of granules keep the rest";
}

// Another process truncates the file under a mapping whose bytes are on the device.
class Truncated : public Contract {
 protected:
  static constexpr std::uint64_t kOld = 4 * kGranule;
  static constexpr std::uint64_t kNew = kGranule + kPage + 7;
};
APRIME_CONTRACT_SUITE(Truncated);

TEST_P(Truncated, sync_writes_what_is_left_and_never_grows_the_file) {
  World world(GetParam());
  const std::string path = world.file(pattern(kOld));
  Mapping m = world.map(path);
  world.store_on_device(m, all_of(m), 0x16);
  plain_truncate(path, kNew);
  EXPECT_NO_THROW(m.sync());
  EXPECT_EQ(plain_size(path), kNew);
  EXPECT_EQ(plain_read(path), constant(kNew, 0x16));
  EXPECT_NO_THROW(m.close());
  EXPECT_EQ(plain_size(path), kNew);
}

// What devices had behind the cut is no part of the file, and does not come back with what is added later.
enum class Noticed : std::uint8_t { by_map, by_sync_and_map, by_sync, by_prefetch, by_read };
constexpr Noticed kNoticed[] = {Noticed::by_map, Noticed::by_sync_and_map, Noticed::by_sync,
                                Noticed::by_prefetch, Noticed::by_read};

TEST_P(Truncated, what_devices_had_behind_the_cut_does_not_hide_what_is_added_then) {
  for (const Noticed noticed : kNoticed) {
    SCOPED_TRACE(static_cast<int>(noticed));
    World world(GetParam());
    const std::string path = world.file(pattern(kOld));
    Mapping m = world.map(path);
    world.store_on_device(m, all_of(m), 0x16);
    plain_truncate(path, kGranule);
    if (noticed == Noticed::by_sync || noticed == Noticed::by_sync_and_map) m.sync();
    if (noticed == Noticed::by_map || noticed == Noticed::by_sync_and_map) {
      EXPECT_EQ(world.map(path).size_bytes().value, kGranule);
    }
    if (noticed == Noticed::by_prefetch) {
      EXPECT_EQ(code_of([&] { m.prefetch(all_of(m), 0, Right::read_write); }), Errc::out_of_range);
    }
    if (noticed == Noticed::by_read) {
      EXPECT_EQ(read_bytes(m, granules(0)), constant(kGranule, 0x16));
    }
    plain_write(path, kGranule, constant(3 * kGranule, 0x17));
    const Bytes expected = with(constant(kOld, 0x16), kGranule, 3 * kGranule, 0x17);
    m.sync();
    EXPECT_EQ(plain_read(path), expected);
    const Mapping longer = world.map(path);
    EXPECT_EQ(world.seen_by_device(longer), expected);
    EXPECT_EQ(read_bytes(longer), expected);
    EXPECT_EQ(seen_by_pointer(longer, all_of(longer)), expected);
    world.increment_on_device(m, all_of(m));
    m.sync();
    EXPECT_EQ(plain_read(path), incremented(expected));
  }
}

TEST_P(Truncated, what_a_launch_has_leased_behind_the_cut_goes_before_the_file_grows) {
  World world(GetParam());
  const std::string path = world.file(pattern(kOld));
  const Mapping m = world.map(path);
  world.store_on_device(m, all_of(m), 0x16);
  std::atomic<bool> is_running{false};
  std::atomic<bool> may_end{false};
  const Completion holding = world.runtime().launch_task(
      {},
      [&](LeasedSpan<const Byte>) {
        is_running = true;
        while (!may_end) std::this_thread::yield();
      },
      aprime::read(m));
  ASSERT_TRUE(eventually([&] { return is_running.load(); }));
  plain_truncate(path, kGranule);
  EXPECT_EQ(world.map(path).size_bytes().value, kGranule) << "waits for nobody";
  plain_write(path, kGranule, constant(3 * kGranule, 0x17));
  may_end = true;
  holding.wait();
  const Mapping longer = world.map(path);
  EXPECT_EQ(world.seen_by_device(longer), with(constant(kOld, 0x16), kGranule, 3 * kGranule, 0x17));
}

TEST_P(Truncated, calls_report_what_is_beyond_the_end) {
  World world(GetParam());
  const std::string path = world.file(pattern(kOld));
  const Mapping m = world.map(path);
  m.host<std::byte>();
  world.store_on_device(m, all_of(m), 0x16);
  plain_truncate(path, kNew);
  for (const HostAccess how : {HostAccess::migrate, HostAccess::bounce, HostAccess::adaptive}) {
    EXPECT_EQ(code_of([&] { read_bytes(m, range(kNew, 1), how); }), Errc::out_of_range);
    EXPECT_EQ(code_of([&] { read_bytes(m, all_of(m), how); }), Errc::out_of_range);
    EXPECT_EQ(code_of([&] { write_bytes(m, 2 * kGranule, constant(3, 1), how); }), Errc::out_of_range);
    EXPECT_EQ(read_bytes(m, range(0, kNew), how), constant(kNew, 0x16));
  }
  EXPECT_EQ(code_of([&] { m.host_lease(granules(2), Right::read); }), Errc::out_of_range);
  EXPECT_EQ(m.size_bytes().value, kOld) << "the mapping is as long as it was";
  EXPECT_EQ(plain_size(path), kNew);
}

TEST_P(Truncated, a_kernel_beyond_the_end_is_stopped_with_the_place) {
  World world(GetParam());
  const std::string path = world.file(pattern(kOld));
  const Mapping m = world.map(path);
  plain_truncate(path, kNew);
  const DeviceFaultStatus status =
      world.runtime().launch({{2}, {64}}, IncrementBytes{}, aprime::read_write(m, granules(2))).status();
  EXPECT_EQ(status.code, Errc::out_of_range) << status.message;
  EXPECT_EQ(status.path, path);
  EXPECT_NE(status.message.find(path), std::string::npos) << status.message;
  EXPECT_EQ(plain_size(path), kNew);
  EXPECT_EQ(world.seen_by_device(m, range(0, kNew)), part(pattern(kOld), 0, kNew))
      << "what is left can be used";
}

TEST_P(Truncated, a_pointer_beyond_the_end_is_a_bus_error) {
  const auto test = [&] {
    World world(GetParam());
    const std::string path = world.file(pattern(kOld));
    const Mapping m = world.map(path);
    const auto host = m.host<std::byte>();
    world.store_on_device(m, all_of(m), 0x16);
    plain_truncate(path, kNew);
    EXPECT_EQ(host[kNew - 1], std::byte{0x16});
    std::byte seen{};
    EXPECT_FALSE(fault::copy_guarded(&seen, &host[3 * kGranule], 1));
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
