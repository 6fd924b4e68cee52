#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <thread>

#include "host/os/syscalls.hpp"
#include "tests/contract/contract.hpp"
#include "tests/contract/demand_kernels.hpp"
#include "tests/test_scale.hpp"

// Too little of something: device memory, memory areas, peace and quiet.

namespace aprime::contract {
namespace {

using Pressure = Contract;
APRIME_CONTRACT_SUITE(Pressure);

/// A device with little memory, and files of several times that.
constexpr WorldOptions kSmallDevice{.device_memory = ByteCount{64 * kGranule}};
constexpr std::uint64_t kLarge = 200;

TEST_P(Pressure, files_larger_than_device_memory_are_read_right) {
  World world(GetParam(), kSmallDevice);
  const Mapping m = world.map_new(pattern(kLarge * kGranule));
  const Delta delta(world);
  for (std::uint64_t g = 0; g < kLarge; g += 25)
    ASSERT_EQ(world.seen_by_device(m, granules(g, 25)),
              part(pattern(kLarge * kGranule), g * kGranule, 25 * kGranule));
  EXPECT_GE(delta.get().evictions, kLarge - 64);
  EXPECT_LE(world.runtime().stats().resident_bytes, 64 * kGranule);
}

TEST_P(Pressure, files_larger_than_device_memory_are_written_right) {
  World world(GetParam(), kSmallDevice);
  const std::string path = world.file(pattern(kLarge * kGranule));
  const Mapping m = world.map(path);
  Bytes expected = pattern(kLarge * kGranule);
  for (int round = 0; round < 2; ++round) {
    if (world.hardware_paged()) {
      // Few threads: each of them walks through the whole file.
      world.runtime().launch({{2}, {2}}, IncrementBytes{}, aprime::read_write(m)).wait();
    } else {
      for (std::uint64_t g = 0; g < kLarge; g += 40) world.increment_on_device(m, granules(g, 40));
    }
    expected = incremented(std::move(expected));
  }
  EXPECT_LE(world.runtime().stats().dirty_bytes, 64 * kGranule);
  EXPECT_GE(world.runtime().stats().evictions, kLarge - 64);
  m.sync();
  EXPECT_EQ(plain_read(path), expected);
}

TEST_P(Pressure, files_take_device_memory_from_one_another) {
  World world(GetParam(), kSmallDevice);
  std::vector<Mapping> files;
  for (unsigned f = 0; f < 6; ++f) files.push_back(world.map_new(pattern(30 * kGranule, f)));
  for (int round = 0; round < 3; ++round)
    for (const Mapping& m : files) world.increment_on_device(m, all_of(m));
  for (unsigned f = 0; f < 6; ++f)
    EXPECT_EQ(read_bytes(files[f]), incremented(incremented(incremented(pattern(30 * kGranule, f))))) << f;
}

TEST_P(Pressure, prefetch_goes_as_far_as_there_is_room) {
  World world(GetParam(), kSmallDevice);
  const Mapping m = world.map_new(pattern(kLarge * kGranule));
  EXPECT_NO_THROW(m.prefetch(all_of(m), 0, Right::read_write));
  EXPECT_LE(world.runtime().stats().resident_bytes, 64 * kGranule);
  EXPECT_GE(world.runtime().stats().granules_filled, 48) << "most of it is used";
  EXPECT_EQ(read_bytes(m), pattern(kLarge * kGranule));
}

TEST_P(Pressure, leases_find_room_among_scattered_granules) {
  World world(GetParam(), kSmallDevice);
  const Mapping m = world.map_new(pattern(kLarge * kGranule));
  Bytes expected = pattern(kLarge * kGranule);
  for (std::uint64_t g = 1; g < kLarge; g += 3) {
    world.increment_on_device(m, granules(g));
    for (std::size_t i = g * kGranule; i < (g + 1) * kGranule; ++i)
      expected[i] = static_cast<std::byte>(std::to_integer<unsigned>(expected[i]) + 1);
  }
  for (const std::uint64_t first : {0, 50, 20, 140, 10})
    ASSERT_EQ(world.seen_by_device(m, granules(first, 20)), part(expected, first * kGranule, 20 * kGranule))
        << first;
  EXPECT_NO_THROW(
      world.runtime().launch_task({}, RequireNonZero{}, aprime::read(m, granules(30, 60))).wait());
  EXPECT_EQ(read_bytes(m), expected);
}

/// Where the kernel allows more memory areas than a test can use up, it refuses one all the same: the last of
/// as many as are usual.
class AreasRunShort {
 public:
  /// \param used how many areas of its own the test makes in this scope
  explicit AreasRunShort(std::uint64_t used) {
    std::uint64_t limit = 0;
    std::ifstream("/proc/sys/vm/max_map_count") >> limit;
    if (limit / 2 >= used)
      os::sys::set_fault_plan({.call = os::sys::Call::mprotect, .nth = used / 2, .error = ENOMEM});
  }
  ~AreasRunShort() { os::sys::clear_fault_plan(); }
  AreasRunShort(const AreasRunShort&) = delete;
  AreasRunShort& operator=(const AreasRunShort&) = delete;
};

TEST_P(Pressure, scattered_rights_end_in_over_protection_and_not_in_errors) {
  constexpr std::uint64_t kCount = 34'000;  // twice as many areas: more than a process may have
  World world(GetParam(), {.granule = ByteCount{kPage}, .device_memory = ByteCount{(kCount + 1000) * kPage}});
  const Mapping m = world.map(world.sparse_file(2 * kCount * kPage));
  m.advise(all_of(m), Advice::random);
  const auto host = m.host<std::byte>();
  const AreasRunShort limit(2 * kCount);
  if (world.hardware_paged()) {
    world.runtime()
        .launch({{1}, {1}}, StoreStrided{}, aprime::read_write(m), std::size_t{2 * kPage}, Byte{0x71})
        .wait();
  } else {
    for (std::uint64_t g = 0; g < kCount; ++g) m.prefetch(granules(2 * g, 1, kPage), 0);
  }
  EXPECT_GT(world.runtime().stats().over_protections, 0);

  // Everything still works, and the rights that were taken too many come back by faults that move nothing.
  const Delta delta(world);
  for (std::uint64_t g = 1; g < 2 * kCount; g += 2 * kCount / 64) {
    const std::uint64_t odd = g | 1;
    host[odd * kPage + 7] = std::byte{0x72};
    ASSERT_EQ(host[odd * kPage + 7], std::byte{0x72});
    ASSERT_EQ(host[(odd - 1) * kPage], world.hardware_paged() ? std::byte{0x71} : std::byte{0});
  }
  EXPECT_GT(delta.get().spurious_faults, 0);
  EXPECT_EQ(delta.get().granules_filled, 0);
}

TEST_P(Pressure, several_threads_that_fault_for_one_page_are_all_woken) {
  World world(GetParam(), {.workers = 4});
  const Mapping m = world.map_new(Bytes(kGranule));
  const auto host = m.host<const unsigned>();
  for (int round = 1; round <= test::scaled(64); ++round) {
    world.runtime().launch({{8}, {32}}, AtomicIncrement{}, aprime::read_write(m), std::size_t{1}).wait();
    std::atomic<unsigned> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&] { wrong += host[100] != static_cast<unsigned>(round); });
    for (std::thread& t : threads) t.join();
    ASSERT_EQ(wrong, 0);
  }
  EXPECT_LE(world.runtime().stats().granules_copied_back, static_cast<std::uint64_t>(test::scaled(64)));
}

TEST_P(Pressure, ping_pong_is_throttled) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(2 * kGranule));
  const auto host = m.host<std::byte>();
  // A machine that is slow or busy may move the page too seldom to call it ping-pong, for a while.
  EXPECT_TRUE(eventually([&] {
    for (int i = 0; i < 40; ++i) {
      world.runtime()
          .launch({{1}, {1}}, StoreAt{}, aprime::read_write(m, granules(0)), std::ptrdiff_t{0}, Byte{1})
          .wait();
      host[1] = std::byte{2};
    }
    return world.runtime().stats().throttled > 0;
  }));
  EXPECT_EQ(host[0], std::byte{1});

  const std::uint64_t before = world.runtime().stats().throttled;
  world.store_on_device(m, granules(1), 3);
  EXPECT_EQ(host[kGranule], std::byte{3});
  EXPECT_EQ(world.runtime().stats().throttled, before) << "a page that moves once is not delayed";
}

TEST_P(Pressure, everyone_at_once_loses_no_store) {
  constexpr std::uint64_t kGranules = 24;
  constexpr unsigned kLanes = 8;
  WorldOptions options{.devices = 2, .device_memory = ByteCount{64 * kGranule}};
  options.dirty_age_max = std::chrono::milliseconds(5);
  World world(GetParam(), options);
  const std::string path = world.file(Bytes(kGranules * kGranule));
  const Mapping m = world.map(path);
  const int rounds = test::scaled(48);

  // Bytes 0 to 7 of each granule belong to one agent each, so each increment must be there in the end.
  const auto by_pointer = [&](unsigned lane) {
    const auto host = m.host<Byte>();
    for (int i = 0; i < rounds; ++i)
      for (std::uint64_t g = 0; g < kGranules; ++g) {
        volatile Byte* byte = &host[g * kGranule + lane];
        *byte = static_cast<Byte>(*byte + 1);
      }
  };
  const auto by_calls = [&](unsigned lane, HostAccess how) {
    for (int i = 0; i < rounds; ++i)
      for (std::uint64_t g = 0; g < kGranules; ++g)
        write_bytes(m, g * kGranule + lane, incremented(read_bytes(m, range(g * kGranule + lane, 1), how)),
                    how);
  };
  const auto by_device = [&](unsigned lane, unsigned device) {
    for (int i = 0; i < rounds; ++i)
      for (std::uint64_t g = 0; g < kGranules; g += kGranules / 3)
        world.runtime()
            .launch({{2}, {4}}, {.device = device, .name = {}}, IncrementLane{},
                    aprime::read_write(m, granules(g, kGranules / 3)), lane, std::size_t{kGranule})
            .wait();
  };
  std::vector<std::thread> threads;
  threads.emplace_back(by_pointer, 0);
  threads.emplace_back(by_pointer, 1);
  threads.emplace_back(by_calls, 2, HostAccess::migrate);
  threads.emplace_back(by_calls, 3, HostAccess::bounce);
  threads.emplace_back(by_calls, 4, HostAccess::adaptive);
  threads.emplace_back(by_device, 5, 0);
  threads.emplace_back(by_device, 6, 1);
  threads.emplace_back([&] {
    for (int i = 0; i < rounds; ++i) m.sync();
  });
  for (std::thread& t : threads) t.join();
  m.sync();
  const Bytes bytes = plain_read(path);
  for (std::uint64_t g = 0; g < kGranules; ++g)
    for (unsigned lane = 0; lane < kLanes; ++lane)
      ASSERT_EQ(std::to_integer<int>(bytes[g * kGranule + lane]), lane < 7 ? rounds : 0)
          << g << ", lane " << lane;
}

TEST_P(Pressure, files_that_come_and_go_at_once_keep_their_own_frames) {
  // More than there is room for, now and then.
  World world(GetParam(), {.devices = 2, .device_memory = ByteCount{64 * kGranule}});
  const unsigned rounds = test::scaled(200U);
  const auto come_and_go = [&](const std::string& path, std::uint64_t granules_of_it) {
    std::vector<unsigned> expected(granules_of_it * kGranule / sizeof(unsigned));
    for (unsigned i = 0; i < rounds; ++i) {
      const Mapping m = world.map(path);
      const bool by_faults = i % 4 == 0;
      const LaunchOptions options{.device = i / 2 % 2, .name = {}};
      if (by_faults)
        world.runtime()
            .launch({{2}, {4}}, options, IncrementPinned{}, demand_read_write(m), kGranule / sizeof(unsigned))
            .wait();
      else
        world.runtime().launch({{2}, {4}}, options, IncrementBytes{}, aprime::read_write(m)).wait();
      for (unsigned& word : expected) word += by_faults ? 1 : 0x01010101;
    }
    EXPECT_EQ(std::memcmp(plain_read(path).data(), expected.data(), granules_of_it * kGranule), 0);
  };
  std::vector<std::thread> threads;
  for (const std::uint64_t granules_of_it : {10, 20, 30, 40})
    threads.emplace_back(come_and_go, world.file(Bytes(granules_of_it * kGranule)), granules_of_it);
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(world.runtime().stats().resident_bytes, 0u);
  EXPECT_EQ(world.runtime().stats().dirty_bytes, 0u);
}

}  // namespace
}  // namespace aprime::contract
