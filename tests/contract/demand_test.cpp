#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <numeric>
#include <thread>

#include "tests/contract/contract.hpp"
#include "tests/contract/demand_kernels.hpp"

// Faults from inside a running kernel, through device_span: on a hardware-paged device by the hardware, on a
// software-paged one by page table, rings and pager.

namespace aprime::contract {
namespace {

using Demand = Contract;
APRIME_CONTRACT_SUITE(Demand);

Bytes words_of(std::size_t count, unsigned value) {
  const std::vector<unsigned> words(count, value);
  const auto* bytes = reinterpret_cast<const std::byte*>(words.data());
  return {bytes, bytes + count * sizeof(unsigned)};
}

constexpr std::size_t kWords = kGranule / sizeof(unsigned);

class Elapsed {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin_ = Clock::now();
};

TEST_P(Demand, a_kernel_sees_the_file_and_the_cpu_sees_its_stores) {
  World world(GetParam());
  const Bytes contents = pattern(5 * kGranule + 777);
  const Mapping from = world.map_new(contents);
  const Mapping to = world.map_new(Bytes(contents.size()));
  world.runtime()
      .launch({{2}, {64}}, CopyElements{}, demand_read(from), demand_read_write(to), std::size_t{1})
      .wait();
  EXPECT_EQ(seen_by_pointer(to, all_of(to)), contents);
  to.sync();
  EXPECT_EQ(plain_read(to.path()), contents);
}

TEST_P(Demand, a_part_of_a_mapping_is_counted_from_its_start) {
  World world(GetParam());
  const Mapping m = world.map_new(words_of(4 * kWords, 5));
  world.runtime()
      .launch({{1}, {32}}, IncrementElements{}, demand_read_write(m, range(kGranule - 8, 16)))
      .wait();
  const Bytes seen = read_bytes(m);
  Bytes expected = words_of(4 * kWords, 5);
  const Bytes six = words_of(4, 6);
  std::copy(six.begin(), six.end(), expected.begin() + kGranule - 8);
  EXPECT_EQ(seen, expected);
}

TEST_P(Demand, a_load_takes_no_write_right) {
  World world(GetParam());
  const Mapping m = world.map_new(words_of(4 * kWords, 5));
  const Mapping result = world.map_new(Bytes(kGranule));
  world.runtime()
      .launch({{1}, {1}}, LoadFrom{}, demand_read_write(m), kWords + 3, aprime::read_write(result))
      .wait();
  EXPECT_EQ(report(m, 1).place, Place::shared) << "rule 3";
  EXPECT_EQ(report(m, 0).devices, 0);
  EXPECT_EQ(result.host<const unsigned>()[0], 5U);
}

TEST_P(Demand, only_what_is_touched_moves_and_faults_are_counted) {
  World world(GetParam());
  const Mapping m = world.map_new(words_of(40 * kWords, 0));
  const Delta delta(world);
  world.runtime().launch({{1}, {1}}, StoreInto{}, demand_read_write(m), 20 * kWords, 9U).wait();
  EXPECT_EQ(delta.get().granules_filled, 1U);
  EXPECT_EQ(delta.get().faults.device_write, 1U);
  EXPECT_EQ(delta.get().faults.device_read, 0U);
  EXPECT_EQ(report(m, 20).place, Place::device);
}

TEST_P(Demand, what_the_device_has_already_needs_no_fault) {
  World world(GetParam());
  const Mapping m = world.map_new(words_of(8 * kWords, 1));
  m.prefetch(all_of(m), 0, Right::read_write);
  const Delta delta(world);
  world.runtime().launch({{2}, {64}}, IncrementElements{}, demand_read_write(m)).wait();
  world.runtime().launch({{2}, {64}}, IncrementElements{}, demand_read_write(m)).wait();
  EXPECT_EQ(delta.get().faults.device_read + delta.get().faults.device_write, 0U);
  EXPECT_EQ(delta.get().granules_filled, 0U);
  EXPECT_EQ(read_bytes(m), words_of(8 * kWords, 3));
}

TEST_P(Demand, a_file_ten_times_the_device_memory) {
  World world(GetParam(), {.device_memory = ByteCount{16 * kGranule}});
  const Mapping m = world.map_new(words_of(160 * kWords, 1));
  const Delta delta(world);
  world.runtime().launch({{4}, {32}}, IncrementPinned{}, demand_read_write(m), kWords).wait();
  EXPECT_GE(delta.get().evictions, 144U);
  EXPECT_EQ(read_bytes(m), words_of(160 * kWords, 2));
}

TEST_P(Demand, pins_of_several_threads_on_one_granule_all_count) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(3 * kGranule));
  world.runtime().launch({{2}, {64}}, IncrementPinned{}, demand_read_write(m), std::size_t{4}).wait();
  EXPECT_EQ(read_bytes(m), words_of(3 * kWords, 1));
}

TEST_P(Demand, atomics_lose_nothing_while_the_cpu_takes_the_granules_away) {
  World world(GetParam(), {.device_memory = ByteCount{16 * kGranule}});
  const Mapping m = world.map_new(Bytes(24 * kGranule));
  const Completion done = world.runtime().launch({{4}, {32}}, CountInto{}, demand_read_write(m), 40U);
  std::uint64_t by_cpu = 0;
  const std::span<unsigned> counters = m.host<unsigned>();
  while (!done.done()) {
    const std::size_t at = by_cpu * 1021 % counters.size();
    std::atomic_ref<unsigned>(counters[at]).fetch_add(1);
    ++by_cpu;
    std::array<std::byte, 64> some{};
    m.read(ByteOffset{by_cpu % 24 * kGranule}, some, HostAccess::bounce);
  }
  done.wait();
  std::uint64_t sum = 0;
  for (const unsigned counter : m.host<const unsigned>()) sum += counter;
  EXPECT_EQ(sum, by_cpu + 4 * 32 * 40);
}

TEST_P(Demand, atomics_are_there_for_fixed_width_words) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(kGranule));
  std::ranges::fill(m.host<std::uint64_t>(), 10);
  world.runtime().launch({{1}, {1}}, ChangeEach64{}, demand_read_write(m), demand_read_write(m)).wait();
  const std::span<const std::uint64_t> words = m.host<const std::uint64_t>();
  EXPECT_EQ(std::vector(words.begin(), words.begin() + 10),
            (std::vector<std::uint64_t>{10 + 10, 5, 10, 10 & 12, 10 | 10, 10 ^ 6, 10, 17, 10, 30}));
}

TEST_P(Demand, a_kernel_can_wait_for_a_store_of_the_cpu) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(kGranule));
  const Completion done = world.runtime().launch({{1}, {1}}, WaitForHost{}, demand_read_write(m), 7U, 8U);
  EXPECT_TRUE(eventually([&] { return report(m, 0).devices != 0 || done.done(); }));
  std::atomic_ref<unsigned>(m.host<unsigned>()[0]).store(7);
  done.wait();
  EXPECT_EQ(m.host<const unsigned>()[1], 8U);
}

TEST_P(Demand, a_bounced_write_reaches_the_running_kernel) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(kGranule));
  world.store_on_device(m, range(8, 8), 1);
  const Completion done = world.runtime().launch({{1}, {1}}, WaitForHost{}, demand_read_write(m), 7U, 8U);
  const unsigned go = 7;
  m.write(ByteOffset{0}, std::as_bytes(std::span(&go, 1)), HostAccess::bounce);
  done.wait();
  EXPECT_EQ(m.host<const unsigned>()[1], 8U);
}

TEST_P(Demand, leases_and_faults_on_one_file_agree) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(4 * kGranule));
  world.runtime()
      .launch({{1}, {64}}, CopyElements{}, demand_read(m), demand_read_write(m), std::size_t{1})
      .wait();
  world.increment_on_device(m, granules(1, 2));
  world.runtime()
      .launch({{1}, {64}}, CopyElements{}, demand_read(m), demand_read_write(m), std::size_t{1})
      .wait();
  Bytes expected = pattern(4 * kGranule);
  const Bytes middle = incremented(part(expected, kGranule, 2 * kGranule));
  std::copy(middle.begin(), middle.end(), expected.begin() + kGranule);
  EXPECT_EQ(read_bytes(m), expected);
}

TEST_P(Demand, an_access_beyond_the_end_stops_the_kernel_and_says_where) {
  World world(GetParam());
  const Mapping m = world.map_new(words_of(2 * kWords, 1));
  const ByteRange some = range(4 * sizeof(unsigned), 100 * sizeof(unsigned));
  const DeviceFaultStatus status =
      world.runtime()
          .launch({{1}, {1}}, StoreInto{}, demand_read_write(m, some), std::size_t{100}, 5U)
          .status();
  EXPECT_EQ(status.code, Errc::out_of_range);
  EXPECT_EQ(status.path, m.path());
  EXPECT_EQ(status.offset.value, 104 * sizeof(unsigned));
  EXPECT_TRUE(status.was_write);
  EXPECT_NE(status.message.find("beyond the end of its span"), std::string::npos) << status.message;
  EXPECT_EQ(read_bytes(m), words_of(2 * kWords, 1));
}

TEST_P(Demand, a_range_that_begins_within_an_element_stops_the_kernel) {
  World world(GetParam());
  const Mapping m = world.map_new(words_of(2 * kWords, 1));
  const DeviceFaultStatus status =
      world.runtime()
          .launch({{1}, {1}}, StoreInto{}, demand_read_write(m, range(2, 100 * sizeof(unsigned))),
                  std::size_t{0}, 5U)
          .status();
  EXPECT_EQ(status.code, Errc::out_of_range);
  EXPECT_EQ(status.path, m.path());
  EXPECT_EQ(status.offset.value, 2U);
  EXPECT_EQ(read_bytes(m), words_of(2 * kWords, 1));
}

TEST_P(Demand, a_file_truncated_by_another_process_ends_the_kernel_with_the_offset) {
  World world(GetParam());
  const Mapping m = world.map_new(words_of(8 * kWords, 1));
  plain_truncate(m.path(), 3 * kGranule);
  const DeviceFaultStatus status =
      world.runtime().launch({{2}, {64}}, StoreInto{}, demand_read_write(m), 5 * kWords, 5U).status();
  EXPECT_EQ(status.code, Errc::out_of_range);
  EXPECT_EQ(status.path, m.path());
  EXPECT_EQ(status.offset.value / kGranule, 5U);
  // The device is as good as new.
  world.runtime()
      .launch({{2}, {64}}, IncrementElements{}, demand_read_write(m, range(0, 3 * kGranule)))
      .wait();
  EXPECT_EQ(read_bytes(m, range(0, 3 * kGranule)), words_of(3 * kWords, 2));
}

TEST_P(Demand, a_store_to_a_file_mapped_for_reading_is_refused_at_the_launch) {
  World world(GetParam());
  const Mapping m = world.map(world.file(Bytes(kGranule)), Access::read);
  EXPECT_EQ(
      code_of([&] {
        world.runtime().launch({{1}, {1}}, StoreInto{}, demand_read_write(m), std::size_t{0}, 5U).wait();
      }),
      Errc::access_denied);
}

TEST_P(Demand, a_stopped_kernel_leaves_no_pin_and_no_request_behind) {
  World world(GetParam());
  const Mapping m = world.map_new(words_of(16 * kWords, 1));
  for (int round = 0; round < 3; ++round) {
    // Some threads fault, some hold pins, and one of them ends the kernel.
    EXPECT_EQ(world.runtime()
                  .launch({{4}, {32}}, IncrementPinned{}, demand_read_write(m), std::size_t{0x1000'0000})
                  .status()
                  .code,
              Errc::ok);
    EXPECT_EQ(
        world.runtime().launch({{4}, {32}}, StoreInto{}, demand_read_write(m), 99 * kWords, 5U).status().code,
        Errc::out_of_range);
    for (std::size_t g = 0; g < 16; ++g) m.host<unsigned>()[g * kWords] += 1;
  }
  world.runtime().launch({{2}, {64}}, IncrementElements{}, demand_read_write(m)).wait();
  EXPECT_EQ(m.host<const unsigned>()[1], 1U + 3 + 1);
  EXPECT_EQ(m.host<const unsigned>()[0], 1U + 3 + 3 + 1);
}

TEST_P(Demand, iterators_walk_the_elements) {
  World world(GetParam());
  const Mapping m = world.map_new(words_of(2 * kWords, 3));
  world.runtime().launch({{1}, {1}}, SumByIterator{}, demand_read_write(m)).wait();
  EXPECT_EQ(m.host<const unsigned>()[2 * kWords - 1], 3 * 2 * kWords / 512);
}

TEST_P(Demand, what_iterators_point_to_is_exchanged_and_changed_in_place) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(2 * kGranule));
  const std::span<unsigned> words = m.host<unsigned>().subspan(kWords - 4, 8);
  std::iota(words.begin(), words.end(), 0U);
  world.runtime()
      .launch({{1}, {1}}, ReverseByIterator{},
              demand_read_write(m, range((kWords - 4) * sizeof(unsigned), 8 * sizeof(unsigned))))
      .wait();
  EXPECT_EQ(std::vector(words.begin(), words.end()), (std::vector<unsigned>{8, 7, 6, 5, 4, 3, 2, 1}));
}

TEST_P(Demand, a_granule_that_is_larger_than_device_memory_is_refused_at_once) {
  World world(GetParam(), {.granule = ByteCount{kPage}, .device_memory = ByteCount{16 * kPage}});
  const Mapping m = world.runtime().map(world.file(Bytes(32 * kPage)), Access::read_write,
                                        {.granule = ByteCount{32 * kPage}});
  const Elapsed elapsed;
  const DeviceFaultStatus status =
      world.runtime().launch({{1}, {1}}, StoreInto{}, demand_read_write(m), std::size_t{0}, 5U).status();
  EXPECT_EQ(status.code, Errc::device_memory);
  EXPECT_NE(status.message.find("a smaller granule"), std::string::npos) << status.message;
  m.prefetch(all_of(m), 0, Right::read);
  EXPECT_LT(elapsed.seconds(), 5) << "it will never fit";
}

/// As many warps as the device has room for, each of which waits for a granule of its own at the same time.
TEST_P(Demand, a_grid_that_fills_the_device_may_fault_everywhere) {
  constexpr std::size_t kGranules = 4096;
  // Faults in order are served with their neighbours', which others wait for.
  for (const Advice advice : {Advice::random, Advice::sequential}) {
    World world(GetParam(), {.device_memory = ByteCount{(kGranules + 16) * kGranule}});
    const Mapping m = world.map_new(words_of(kGranules * kWords, 3));
    m.advise(all_of(m), advice);
    const Mapping sum = world.map_new(Bytes(kGranule));
    const unsigned processors = world.runtime().devices().front().workers;
    world.runtime()
        .launch({{4 * processors}, {256}}, AddGranules{}, demand_read(m), kWords, aprime::read_write(sum))
        .wait();
    EXPECT_EQ(sum.host<const unsigned long long>()[0], 3ULL * kGranules * kWords);
  }
}

using SoftwarePagedDemand = Contract;
APRIME_LEASING_SUITE(SoftwarePagedDemand);

/// For so long the host waits for a granule that threads of a kernel have pinned.
constexpr double kPinWaitSeconds = 30;

/// Loads take no pin, and granules come and go all the time: device memory has not room for all.
TEST_P(SoftwarePagedDemand, a_load_sees_no_half_of_a_write) {
  World world(GetParam(), {.device_memory = ByteCount{16 * kGranule}});
  constexpr std::size_t kGranules = 40;
  constexpr std::size_t kPerGranule = kGranule / sizeof(Numbered);
  constexpr std::uint64_t kLast = 2000;
  const Mapping m = world.map_new(Bytes(kGranules * kGranule));
  const Mapping torn = world.map_new(Bytes(kGranule));
  const Completion watched = world.runtime().launch({{1}, {1}}, WatchNumbers{}, demand_read(m), kPerGranule,
                                                    kLast, aprime::read_write(torn));
  for (std::uint64_t number = 1; number <= kLast; ++number) {
    const Numbered value{{number, number, number, number}};
    const std::size_t granule = number == kLast ? 0 : number % kGranules;
    m.write(ByteOffset{granule * kGranule}, std::as_bytes(std::span(&value, 1)));
  }
  watched.wait();
  EXPECT_EQ(torn.host<const unsigned>()[0], 0U);
}

/// More faults than there are commands under way at once. Small granules: the CPU waits for so long only.
TEST_P(SoftwarePagedDemand, a_pin_that_the_cpu_waits_for_holds_up_nobody_else) {
  constexpr std::size_t kGranules = 1200;
  constexpr std::size_t kWordsOfPage = kPage / sizeof(unsigned);
  World world(GetParam(),
              {.granule = ByteCount{kPage}, .device_memory = ByteCount{(kGranules + 64) * kPage}});
  const Mapping pinned = world.map_new(Bytes(kPage));
  const Mapping others = world.map_new(Bytes(kGranules * kPage));
  const Mapping ended = world.map_new(Bytes(kPage));
  const Completion done =
      world.runtime().launch({{2}, {32}}, PinWhileOthersFault{}, demand_read_write(pinned),
                             demand_read_write(others), kWordsOfPage, aprime::read_write(ended));
  std::thread reader([&] {
    while (!done.done()) {
      try {
        static_cast<void>(read_bytes(pinned, range(4, 4)));
      } catch (const Error& error) {
        // On a machine that is slow enough the pin is there for longer than anybody waits for one.
        EXPECT_EQ(error.system_error(), ETIMEDOUT) << error.what();
      }
    }
  });
  EXPECT_EQ(done.status().code, Errc::ok);
  reader.join();
  EXPECT_EQ(pinned.host<const unsigned>()[0], 1U);
  unsigned stored = 0;
  for (std::size_t g = 0; g < kGranules; ++g) stored += others.host<const unsigned>()[g * kWordsOfPage];
  EXPECT_EQ(stored, kGranules);
}

/// More granules at once than device memory has room for: no lane may keep its own until the others have
/// theirs, as those of a GPU would if they went on together only.
TEST_P(SoftwarePagedDemand, a_warp_may_store_to_more_granules_than_there_are_frames) {
  constexpr std::size_t kGranules = 40;
  constexpr unsigned kRounds = 40;
  World world(GetParam(), {.device_memory = ByteCount{16 * kGranule}});
  const Mapping m = world.map_new(Bytes(kGranules * kGranule));
  const Elapsed elapsed;
  world.runtime().launch({{1}, {32}}, ChangeScattered{}, demand_read_write(m), kWords, kRounds).wait();
  EXPECT_LT(elapsed.seconds(), kPinWaitSeconds / 2);
  unsigned first = 0, last = 0;
  for (std::size_t g = 0; g < kGranules; ++g) {
    first += m.host<const unsigned>()[g * kWords];
    last += m.host<const unsigned>()[(g + 1) * kWords - 1];
  }
  EXPECT_EQ(first, 32 * kRounds);
  EXPECT_EQ(last, 32 * kRounds);
}

/// Room is made where nobody has a pin.
TEST_P(SoftwarePagedDemand, a_pin_is_not_waited_for_where_room_is_wanted) {
  constexpr std::size_t kGranules = 100;
  World world(GetParam(), {.device_memory = ByteCount{16 * kGranule}});
  const Mapping pinned = world.map_new(Bytes(kGranule));
  const Mapping others = world.map_new(Bytes(kGranules * kGranule));
  const Mapping ended = world.map_new(Bytes(kGranule));
  const Elapsed elapsed;
  world.runtime()
      .launch({{2}, {32}}, PinWhileOthersFault{}, demand_read_write(pinned), demand_read_write(others),
              kWords, aprime::read_write(ended))
      .wait();
  EXPECT_LT(elapsed.seconds(), kPinWaitSeconds / 2);
  EXPECT_EQ(pinned.host<const unsigned>()[0], 1U);
  unsigned stored = 0;
  for (std::size_t g = 0; g < kGranules; ++g) stored += others.host<const unsigned>()[g * kWords];
  EXPECT_EQ(stored, kGranules);
}

}  // namespace
}  // namespace aprime::contract
