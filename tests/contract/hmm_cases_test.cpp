#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>
#include <thread>

#include "tests/contract/contract.hpp"
#include "tests/contract/full_disk.hpp"

// The cases of the Linux HMM self-tests (tools/testing/selftests/mm/hmm-tests.c), under their names, for our
// devices. What is anonymous memory there is a file here. "Moved" is granules filled and copied back.

namespace aprime::contract {
namespace {

using HmmCases = Contract;
APRIME_CONTRACT_SUITE(HmmCases);

constexpr std::array<std::string_view, 37> kUpstream{"open_close",
                                                     "anon_read",
                                                     "anon_read_prot",
                                                     "anon_write",
                                                     "anon_write_prot",
                                                     "anon_write_child",
                                                     "anon_write_child_shared",
                                                     "anon_write_huge",
                                                     "anon_write_hugetlbfs",
                                                     "file_read",
                                                     "file_write",
                                                     "migrate",
                                                     "migrate_fault",
                                                     "migrate_release",
                                                     "migrate_shared",
                                                     "migrate_mixed",
                                                     "migrate_multiple",
                                                     "anon_read_multiple",
                                                     "anon_teardown",
                                                     "mixedmap",
                                                     "snapshot",
                                                     "compound",
                                                     "double_map",
                                                     "exclusive",
                                                     "exclusive_mprotect",
                                                     "exclusive_cow",
                                                     "hmm_gup_test",
                                                     "hmm_cow_in_device",
                                                     "migrate_anon_huge_empty",
                                                     "migrate_anon_huge_zero",
                                                     "migrate_anon_huge_free",
                                                     "migrate_anon_huge_fault",
                                                     "migrate_anon_huge_err",
                                                     "migrate_anon_huge_zero_err",
                                                     "migrate_partial_unmap_fault",
                                                     "migrate_remap_fault",
                                                     "benchmark_thp_migration"};

struct NotApplicable {
  std::string_view name;
  const char* reason;
};
constexpr std::array kNotApplicable{
    NotApplicable{"anon_read_prot", "a mapping can always be read: what may not be read cannot be mapped"},
    NotApplicable{"mixedmap",
                  "areas that mix pages with device memory come from drivers; only regular files are mapped"},
    NotApplicable{"hmm_cow_in_device", "mappings are shared, so nothing is copied on write"},
    NotApplicable{"benchmark_thp_migration", "a measurement, not a promise: see the benchmarks"},
};

TEST(HmmList, every_case_is_a_test_or_has_a_reason) {
  std::vector<std::string> tests;
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int s = 0; s < all.total_test_suite_count(); ++s)
    for (int t = 0; t < all.GetTestSuite(s)->total_test_count(); ++t) {
      const std::string name = all.GetTestSuite(s)->GetTestInfo(t)->name();
      tests.push_back(name.substr(0, name.find('/')));
    }
  for (const std::string_view name : kUpstream) {
    const bool is_test = std::find(tests.begin(), tests.end(), "hmm_" + std::string(name)) != tests.end();
    const bool has_reason = std::any_of(kNotApplicable.begin(), kNotApplicable.end(),
                                        [&](const NotApplicable& n) { return n.name == name; });
    EXPECT_NE(is_test, has_reason) << name;
  }
}

constexpr std::uint64_t kCount = 16;
constexpr std::uint64_t kBytes = kCount * kGranule;

Mapping map_sequential(World& world, const std::string& path, Access access = Access::read_write) {
  Mapping m = world.map(path, access);
  m.advise(all_of(m), Advice::sequential);
  return m;
}

TEST_P(HmmCases, hmm_open_close) {
  for (int i = 0; i < 3; ++i) {
    World world(GetParam(), {.devices = 2});
    EXPECT_EQ(world.runtime().devices().size(), 2);
    world.end_runtime();
  }
}

TEST_P(HmmCases, hmm_anon_read) {
  World world(GetParam());
  const std::string path = world.sparse_file(kBytes);
  plain_write(path, 2 * kPage, part(pattern(kBytes), 2 * kPage, kBytes - 2 * kPage));
  const Mapping m = map_sequential(world, path, Access::read);
  EXPECT_EQ(load_byte(&m.host<const std::byte>()[kPage]), 0);
  const Delta delta(world);
  world.touch_on_device(m, all_of(m));
  EXPECT_EQ(delta.get().granules_filled, kCount);
  EXPECT_EQ(delta.get().faults.device_read, world.faults(1));
  EXPECT_EQ(world.seen_by_device(m), with(pattern(kBytes), 0, 2 * kPage, 0));
}

TEST_P(HmmCases, hmm_file_read) {
  World world(GetParam());
  const Mapping m = map_sequential(world, world.file(pattern(kBytes)));
  const Delta delta(world);
  EXPECT_EQ(world.seen_by_device(m, range(0, 1)), part(pattern(kBytes), 0, 1));
  world.touch_on_device(m, all_of(m));
  EXPECT_EQ(delta.get().granules_filled, kCount);
  EXPECT_EQ(delta.get().faults.device_read, world.faults(1));
  EXPECT_EQ(world.seen_by_device(m), pattern(kBytes));
}

TEST_P(HmmCases, hmm_anon_write) {
  World world(GetParam());
  const Mapping m = map_sequential(world, world.sparse_file(kBytes));
  const Delta delta(world);
  world.runtime().launch({{1}, {1}}, StoreEverywhere{}, aprime::read_write(m), Byte{0x19}).wait();
  EXPECT_EQ(delta.get().granules_filled, kCount);
  EXPECT_EQ(delta.get().faults.device_write, world.faults(1));
  EXPECT_EQ(seen_by_pointer(m, all_of(m)), constant(kBytes, 0x19));
  EXPECT_EQ(delta.get().granules_copied_back, kCount);
  EXPECT_EQ(delta.get().faults.host_read, 1);
}

TEST_P(HmmCases, hmm_file_write) {
  World world(GetParam());
  const std::string path = world.file(pattern(kBytes));
  const Mapping m = map_sequential(world, path);
  world.increment_on_device(m, all_of(m));
  EXPECT_EQ(seen_by_pointer(m, all_of(m)), incremented(pattern(kBytes)));
  EXPECT_EQ(plain_read(path), incremented(pattern(kBytes))) << "pread, once it has been home";
}

TEST_P(HmmCases, hmm_anon_write_prot) {
  World world(GetParam());
  const std::string path = world.sparse_file(kBytes);
  {
    const Mapping m = world.map(path, Access::read);
    world.touch_on_device(m, granules(0));
    const DeviceFaultStatus status =
        world.runtime()
            .launch({{1}, {1}}, StoreThroughReadLease{}, aprime::read(m), std::size_t{0}, Byte{1})
            .status();
    // A GPU lets the kernel spoil its copy; the file never sees that.
    EXPECT_EQ(status.code, GetParam().watches_kernels ? Errc::access_denied : Errc::ok);
    EXPECT_EQ(code_of([&] { world.store_on_device(m, all_of(m), 1); }), Errc::access_denied);
    EXPECT_EQ(seen_by_pointer(m, all_of(m)), Bytes(kBytes));
  }
  const Mapping m = world.map(path);
  world.store_on_device(m, all_of(m), 1);
  EXPECT_EQ(seen_by_pointer(m, all_of(m)), constant(kBytes, 1));
}

TEST_P(HmmCases, hmm_anon_write_child) {
  World world(GetParam());
  const std::string path = world.file(pattern(kBytes));
  const Mapping m = world.map(path);
  world.increment_on_device(m, all_of(m));
  const int status = in_child([&] { ::_exit(plain_read(path) == pattern(kBytes) ? 0 : 1); });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "the child sees home, and no mapping";
  EXPECT_EQ(seen_by_pointer(m, all_of(m)), incremented(pattern(kBytes)));
}

TEST_P(HmmCases, hmm_anon_write_child_shared) {
  World world(GetParam());
  const std::string path = world.file(pattern(kBytes));
  const Mapping m = world.map(path);
  const int status = in_child([&] { plain_write(path, 0, constant(kBytes, 0x1a)); });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(seen_by_pointer(m, all_of(m)), constant(kBytes, 0x1a)) << "the file is what they share";
  EXPECT_EQ(world.seen_by_device(m), constant(kBytes, 0x1a));
}

// Large pages: a granule of 2 MiB.
constexpr ByteCount kHuge = 2_MiB;
WorldOptions huge_world() { return {.granule = kHuge, .device_memory = 64_MiB}; }

void write_huge(const Personality& personality) {
  World world(personality, huge_world());
  const std::string path = world.file(pattern(2 * kHuge.value));
  const Mapping m = world.map(path);
  Delta delta(world);
  world.store_on_device(m, range(kHuge.value + 100, 1), 0);
  EXPECT_EQ(delta.get().granules_filled, 1);
  EXPECT_EQ(report(m, 0).place, Place::host);
  EXPECT_EQ(report(m, 1).place, Place::device);
  EXPECT_EQ(seen_by_pointer(m, all_of(m)), with(pattern(2 * kHuge.value), kHuge.value + 100, 1, 0));
  EXPECT_EQ(delta.get().granules_copied_back, 1);
}

TEST_P(HmmCases, hmm_anon_write_huge) { write_huge(GetParam()); }
TEST_P(HmmCases, hmm_anon_write_hugetlbfs) { write_huge(GetParam()); }

TEST_P(HmmCases, hmm_compound) {
  World world(GetParam(), huge_world());
  const Mapping m = world.map_new(pattern(4 * kHuge.value));
  world.touch_on_device(m, range(kHuge.value, 1));
  world.store_on_device(m, range(2 * kHuge.value, 1), 1);
  const std::array<Place, 4> expected{Place::host, Place::shared, Place::device, Place::host};
  for (std::uint64_t g = 0; g < 4; ++g) EXPECT_EQ(report(m, g).place, expected[g]) << g;
}

TEST_P(HmmCases, hmm_migrate) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(kBytes));
  const Delta delta(world);
  m.prefetch(all_of(m), 0, Right::read_write);
  EXPECT_EQ(delta.get().granules_filled, kCount);
  EXPECT_EQ(world.seen_by_device(m), pattern(kBytes));
  EXPECT_EQ(delta.get().faults.device_read, 0);
}

TEST_P(HmmCases, hmm_migrate_fault) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(kBytes));
  m.advise(all_of(m), Advice::random);
  Delta delta(world);
  m.prefetch(all_of(m), 0, Right::read_write);
  EXPECT_EQ(seen_by_pointer(m, range(0, kBytes / 2)), part(pattern(kBytes), 0, kBytes / 2));
  EXPECT_EQ(delta.get().granules_copied_back, kCount / 2);
  delta = Delta(world);
  m.prefetch(all_of(m), 0, Right::read_write);
  EXPECT_EQ(delta.get().granules_filled, 0) << "the half that came back is still there to read";
  world.increment_on_device(m, all_of(m));
  EXPECT_EQ(seen_by_pointer(m, all_of(m)), incremented(pattern(kBytes)));
}

TEST_P(HmmCases, hmm_migrate_release) {
  World world(GetParam(), {.device_memory = ByteCount{2 * kBytes}});
  const Mapping m = world.map_new(pattern(kBytes));
  world.increment_on_device(m, all_of(m));
  const Mapping other = world.map_new(Bytes(2 * kBytes));
  other.prefetch(all_of(other), 0);
  EXPECT_GE(world.runtime().stats().evictions, kCount);
  for (std::uint64_t g = 0; g < kCount; ++g)
    EXPECT_EQ(report(m, g).devices, 0) << "the device has let go of it";
  EXPECT_EQ(seen_by_pointer(m, all_of(m)), incremented(pattern(kBytes)));
}

TEST_P(HmmCases, hmm_migrate_shared) {
  World world(GetParam());
  const std::string path = world.file(pattern(kBytes));
  const Mapping first = world.map(path);
  const Mapping second = world.map(path);
  first.host<std::byte>();
  second.host<std::byte>();
  const Delta delta(world);
  first.prefetch(all_of(first), 0, Right::read_write);
  EXPECT_EQ(delta.get().granules_filled, kCount) << "they move, once, for both";
  EXPECT_EQ(report(second, 0).place, Place::device);
  EXPECT_EQ(seen_by_pointer(second, all_of(second)), pattern(kBytes));
  EXPECT_EQ(seen_by_pointer(first, all_of(first)), pattern(kBytes));
  EXPECT_EQ(delta.get().granules_copied_back, kCount);
}

TEST_P(HmmCases, hmm_migrate_mixed) {
  World world(GetParam(), {.devices = 2});
  const std::string path = world.file(pattern(kBytes));
  const Mapping reader = world.map(path, Access::read);
  EXPECT_EQ(code_of([&] { reader.prefetch(all_of(reader), 0, Right::read_write); }), Errc::access_denied);
  const Mapping m = world.map(path);
  m.prefetch(granules(0, 8), 0, Right::read_write);
  m.prefetch(granules(4, 8), 1, Right::read_write);
  for (std::uint64_t g = 0; g < kCount; ++g)
    EXPECT_EQ(report(m, g).devices, g < 4 ? 1 : g < 12 ? 2 : 0) << g << ": the other device gives it up";
  EXPECT_EQ(world.seen_by_device(m, 0), pattern(kBytes));
  EXPECT_EQ(world.seen_by_device(m, 1), pattern(kBytes));
}

TEST_P(HmmCases, hmm_migrate_multiple) {
  World world(GetParam());
  for (unsigned round = 0; round < 10; ++round) {
    const Mapping m = world.map_new(pattern(kBytes, round));
    const Delta delta(world);
    m.prefetch(all_of(m), 0, Right::read_write);
    EXPECT_EQ(seen_by_pointer(m, all_of(m)), pattern(kBytes, round));
    EXPECT_EQ(delta.get().granules_filled, kCount);
    EXPECT_EQ(delta.get().granules_copied_back, kCount);
  }
}

TEST_P(HmmCases, hmm_anon_read_multiple) {
  World world(GetParam());
  for (unsigned round = 0; round < 10; ++round)
    EXPECT_EQ(world.seen_by_device(world.map_new(pattern(kBytes, round))), pattern(kBytes, round));
  EXPECT_LE(world.runtime().stats().resident_bytes, 32 * kGranule)
      << "files that are gone take no device memory";
}

TEST_P(HmmCases, hmm_anon_teardown) {
  World world(GetParam());
  for (unsigned round = 0; round < 10; ++round) {
    const std::string path = world.file(pattern(kBytes, round));
    const Mapping m = world.map(path);
    const Mapping copy = world.map_new(Bytes(kBytes));
    const Completion launch =
        world.runtime().launch({{1}, {32}}, CopyBytes{}, aprime::read(m), aprime::read_write(copy));
    plain_truncate(path, kBytes / 2);
    const DeviceFaultStatus status = launch.status();
    if (!status.is_ok()) {
      EXPECT_EQ(status.code, Errc::out_of_range) << status.message;
    }
    const Bytes seen = read_bytes(copy);
    const Bytes right = pattern(kBytes, round);
    for (std::size_t i = 0; i < kBytes; ++i)
      ASSERT_TRUE(seen[i] == right[i] || (seen[i] == std::byte{0} && (!status.is_ok() || i >= kBytes / 2)))
          << i;
    if (status.is_ok()) {
      EXPECT_EQ(part(seen, 0, kBytes / 2), part(right, 0, kBytes / 2));
    }
  }
}

}  // namespace
}  // namespace aprime::contract
