#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "tests/contract/contract.hpp"
#include "tests/contract/full_disk.hpp"

// The cases of the Linux HMM self-tests, continued (see hmm_cases_test.cpp): exact states, atomics, pins,
// large pages.

namespace aprime::contract {
namespace {

using HmmStates = Contract;
APRIME_CONTRACT_SUITE(HmmStates);

constexpr ByteCount kHuge = 2_MiB;
constexpr WorldOptions kHugeWorld{.granule = kHuge, .device_memory = 48_MiB};

TEST_P(HmmStates, hmm_snapshot) {
  World world(GetParam(), {.devices = 2});
  const Mapping m = world.map_new(pattern(10 * kGranule));
  const auto host = m.host<std::byte>();
  world.touch_on_device(m, granules(1), 0);
  world.touch_on_device(m, granules(2), 1);
  world.touch_on_device(m, granules(3), 0);
  world.touch_on_device(m, granules(3), 1);
  world.store_on_device(m, granules(4), 1, 0);
  world.store_on_device(m, granules(5), 1, 1);
  world.store_on_device(m, granules(6), 1, 1);
  read_bytes(m, granules(6), HostAccess::bounce);
  world.store_on_device(m, granules(7), 1, 0);
  m.sync(granules(7));
  world.store_on_device(m, granules(8), 1, 0);
  write_bytes(m, 8 * kGranule, constant(1, 2), HostAccess::migrate);
  world.store_on_device(m, granules(9), 1, 0);
  host[9 * kGranule] = std::byte{3};

  struct Expected {
    Place place;
    bool host_reads, host_writes;
    unsigned devices;
  };
  constexpr std::array<Expected, 10> kExpected{{
      {Place::host, true, true, 0},            // never touched
      {Place::shared, true, false, 1},         // read here
      {Place::shared, true, false, 2},         // read elsewhere
      {Place::shared, true, false, 3},         // read by both
      {Place::device, false, false, 1},        // written here
      {Place::device, false, false, 2},        // written elsewhere
      {Place::device_dirty, false, false, 2},  // bounced
      {Place::shared, false, false, 1},        // written back
      {Place::home, false, false, 0},          // written by a call
      {Place::host, true, true, 0},            // written by the CPU
  }};
  const std::vector<GranuleReport> reports = m.snapshot(all_of(m));
  ASSERT_EQ(reports.size(), kExpected.size());
  for (std::size_t g = 0; g < kExpected.size(); ++g) {
    EXPECT_EQ(reports[g].place, kExpected[g].place) << g;
    EXPECT_EQ(reports[g].host_may_read, kExpected[g].host_reads) << g;
    EXPECT_EQ(reports[g].host_may_write, kExpected[g].host_writes) << g;
    EXPECT_EQ(reports[g].devices, kExpected[g].devices) << g;
  }
  EXPECT_EQ(m.snapshot(range(kGranule - 1, 2)).size(), 2);
}

TEST_P(HmmStates, hmm_double_map) {
  World world(GetParam(), {.devices = 2});
  const Mapping m = world.map_new(pattern(4 * kGranule));
  EXPECT_EQ(world.seen_by_device(m, 0), pattern(4 * kGranule));
  EXPECT_EQ(world.seen_by_device(m, 1), pattern(4 * kGranule));
  EXPECT_EQ(report(m, 0).devices, 3);
  m.prefetch(all_of(m), 0, Right::read_write);
  EXPECT_EQ(report(m, 0).devices, 1);
  EXPECT_EQ(world.seen_by_device(m, 1), pattern(4 * kGranule));
  world.increment_on_device(m, all_of(m), 0);
  EXPECT_EQ(world.seen_by_device(m, 1), incremented(pattern(4 * kGranule)));
}

TEST_P(HmmStates, hmm_exclusive) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(4 * kGranule));
  const auto host = m.host<unsigned>();
  for (unsigned round = 0; round < 10; ++round) {
    world.runtime().launch({{1}, {32}}, AtomicIncrement{}, aprime::read_write(m), std::size_t{0}).wait();
    EXPECT_EQ(report(m, 0).place, Place::device);
    const Delta delta(world);
    host[0] += 1;
    EXPECT_EQ(report(m, 0).place, Place::host) << "the CPU's access ends it";
    EXPECT_LE(delta.get().granules_copied_back, 1);
  }
  EXPECT_EQ(host[0], 10 * 33) << "every increment is kept";
}

TEST_P(HmmStates, hmm_exclusive_mprotect) {
  World world(GetParam());
  const std::string path = world.file(pattern(kGranule));
  {
    const Mapping m = world.map(path, Access::read);
    // The second time, too: a kernel that was stopped in the middle of an atomic has locked nothing.
    for (int i = 0; i < 2; ++i) {
      const DeviceFaultStatus status =
          world.runtime().launch({{1}, {1}}, AtomicOnReadLease{}, aprime::read(m)).status();
      // A GPU lets the kernel spoil its copy; the file never sees that.
      EXPECT_EQ(status.code, GetParam().watches_kernels ? Errc::access_denied : Errc::ok)
          << "an atomic is a write: " << status.message;
      EXPECT_EQ(status.was_write, GetParam().watches_kernels);
    }
  }
  EXPECT_EQ(plain_read(path), pattern(kGranule));
}

TEST_P(HmmStates, hmm_exclusive_cow) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(kGranule));
  auto* const host = m.host<std::byte>().data();
  world.runtime().launch({{1}, {32}}, AtomicIncrement{}, aprime::read_write(m), std::size_t{0}).wait();
  const int status = in_child([&] { ::_exit(load_byte(host) == 0 ? 0 : 0); });
  EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "the child has no view";
  EXPECT_FALSE(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
  world.runtime().launch({{1}, {32}}, AtomicIncrement{}, aprime::read_write(m), std::size_t{0}).wait();
  EXPECT_EQ(load_byte(host), 64);
}

TEST_P(HmmStates, hmm_hmm_gup_test) {
  World world(GetParam());
  const std::string path = world.file(pattern(4 * kGranule));
  const Mapping m = world.map(path);
  world.increment_on_device(m, all_of(m));
  const Delta delta(world);
  {
    const HostLease pinned = m.host_lease(granules(1, 2), Right::read_write);
    EXPECT_EQ(delta.get().granules_copied_back, 2) << "a pin migrates back first";
    EXPECT_EQ(report(m, 0).place, Place::device);
    EXPECT_EQ(report(m, 1).place, Place::host);
    EXPECT_EQ(Bytes(pinned.bytes().begin(), pinned.bytes().end()),
              part(incremented(pattern(4 * kGranule)), kGranule, 2 * kGranule));
  }
  alignas(4096) static std::array<std::byte, kGranule> buffer;
  m.read_direct(ByteOffset{0}, buffer);
  EXPECT_EQ(Bytes(buffer.begin(), buffer.end()), part(incremented(pattern(4 * kGranule)), 0, kGranule));
  world.increment_on_device(m, all_of(m));
  EXPECT_EQ(read_bytes(m), incremented(incremented(pattern(4 * kGranule))));
}

TEST_P(HmmStates, hmm_migrate_anon_huge_empty) {
  World world(GetParam(), kHugeWorld);
  const std::string path = world.sparse_file(kHuge.value);
  const Mapping m = world.map(path);
  m.prefetch(all_of(m), 0, Right::read_write);
  world.store_on_device(m, range(5, 1), 1);
  EXPECT_EQ(seen_by_pointer(m, all_of(m)), with(Bytes(kHuge.value), 5, 1, 1));
}

TEST_P(HmmStates, hmm_migrate_anon_huge_zero) {
  World world(GetParam(), kHugeWorld);
  const std::string path = world.sparse_file(kHuge.value);
  const Mapping m = world.map(path);
  EXPECT_EQ(load_byte(m.host<std::byte>().data()), 0) << "the kernel's zero page, or its like";
  m.prefetch(all_of(m), 0, Right::read_write);
  EXPECT_EQ(world.seen_by_device(m, range(kHuge.value - 1000, 1000)), Bytes(1000));
  EXPECT_EQ(seen_by_pointer(m, all_of(m)), Bytes(kHuge.value));
}

TEST_P(HmmStates, hmm_migrate_anon_huge_free) {
  World world(GetParam(), kHugeWorld);
  const Mapping m = world.map_new(pattern(2 * kHuge.value));
  world.increment_on_device(m, all_of(m));
  m.discard(range(0, kHuge.value));
  EXPECT_EQ(report(m, 0).devices, 0);
  EXPECT_EQ(seen_by_pointer(m, all_of(m)), with(incremented(pattern(2 * kHuge.value)), 0, kHuge.value, 0));
}

TEST_P(HmmStates, hmm_migrate_anon_huge_fault) {
  World world(GetParam(), kHugeWorld);
  const Mapping m = world.map_new(pattern(2 * kHuge.value));
  const auto* const host = m.host<const std::byte>().data();
  m.prefetch(all_of(m), 0, Right::read_write);
  const Delta delta(world);
  EXPECT_EQ(load_byte(host + kHuge.value / 2), std::to_integer<Byte>(pattern(kHuge.value)[kHuge.value / 2]));
  EXPECT_EQ(delta.get().granules_copied_back, 1) << "the whole granule, and no other";
  EXPECT_EQ(delta.get().bytes_copied_back, kHuge.value);
  EXPECT_EQ(report(m, 1).place, Place::device);
}

/// Allocation fails on the way to the device, then on the way home.
void fail_both_ways(const Personality& personality, bool zeros) {
  World world(personality, kHugeWorld);
  FullDisk disk(world.path_for("disk"));
  const std::string path = disk.sparse_file(kHuge.value);
  const Mapping m = world.map(path);
  const Mapping large = world.map(world.sparse_file(64 * kHuge.value));
  disk.run_full();
  const DeviceFaultStatus to_device = world.runtime()
                                          .launch_task(
                                              {}, [](LeasedSpan<const Byte>) {}, aprime::read(large))
                                          .status();
  EXPECT_EQ(to_device.code, Errc::device_memory);

  const Byte value = zeros ? 0 : 0x5d;
  world.runtime().launch({{2}, {64}}, StoreEverywhere{}, aprime::write(m), value).wait();
  EXPECT_EQ(code_of([&] { m.prefetch_home(all_of(m)); }), Errc::no_space);
  EXPECT_EQ(world.seen_by_device(m), constant(kHuge.value, value)) << "bytes survive where they are";
  disk.make_room();
  EXPECT_EQ(seen_by_pointer(m, all_of(m)), constant(kHuge.value, value));
}

TEST_P(HmmStates, hmm_migrate_anon_huge_err) { fail_both_ways(GetParam(), false); }
TEST_P(HmmStates, hmm_migrate_anon_huge_zero_err) { fail_both_ways(GetParam(), true); }

TEST_P(HmmStates, hmm_migrate_partial_unmap_fault) {
  World world(GetParam(), kHugeWorld);
  for (const std::uint64_t offset : {std::uint64_t{0}, kHuge.value / 4, kHuge.value / 2}) {
    const Mapping m = world.map_new(pattern(kHuge.value));
    world.increment_on_device(m, all_of(m));
    m.discard(range(offset, 1024 * 1024));
    EXPECT_EQ(seen_by_pointer(m, all_of(m)), with(incremented(pattern(kHuge.value)), offset, 1024 * 1024, 0))
        << offset;
  }
}

TEST_P(HmmStates, hmm_migrate_remap_fault) {
  World world(GetParam());
  const std::string path = world.file(pattern(8 * kGranule));
  Bytes expected = pattern(8 * kGranule);
  for (const std::uint64_t offset : {std::uint64_t{0}, 2 * kGranule, 4 * kGranule}) {
    Mapping before = world.map(path);
    before.host<std::byte>();
    world.increment_on_device(before, all_of(before));
    expected = incremented(std::move(expected));
    const Mapping after = world.runtime().map(path, Access::read_write, {.offset = ByteOffset{offset}});
    before.close();
    EXPECT_EQ(report(after, 0).place, Place::device) << "still away, for the mapping at another place";
    EXPECT_EQ(seen_by_pointer(after, all_of(after)), part(expected, offset, 8 * kGranule - offset)) << offset;
  }
}

}  // namespace
}  // namespace aprime::contract
