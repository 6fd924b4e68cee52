// Granules that threads of a running kernel pin all the time, several at once.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <stdexcept>
#include <thread>

#include "aprime/device_span.hpp"
#include "tests/contract/contract.hpp"

namespace aprime::engine {
namespace {

using namespace contract;

using Pins = Contract;
APRIME_CONTRACT_SUITE(Pins);

constexpr std::size_t kWords = kGranule / sizeof(unsigned);

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// So that the kernel ends, and the test with it, whatever else goes wrong.
struct SetAtEnd {
  std::atomic<bool>& flag;
  ~SetAtEnd() { flag = true; }
};

struct KeepPinned {
  std::atomic<bool>* is_over;
  std::chrono::microseconds each;
  std::size_t granules;

  void operator()(device_span<unsigned> words) const {
    while (!is_over->load())
      words.with_pinned(blockIdx.x % granules * kWords, kWords, [&](unsigned* pinned, std::size_t) {
        std::atomic_ref<unsigned>(*pinned).fetch_add(1);
        std::this_thread::sleep_for(each);
      });
  }
};

/// Runs `body` while the first granules of the file are kept pinned.
void while_kept_pinned(World& world, const Mapping& m, std::chrono::microseconds each, std::size_t granules,
                       const std::function<void()>& body) {
  std::atomic<bool> is_over{false};
  const Completion launch =
      world.runtime().launch({{16}, {1}}, KeepPinned{&is_over, each, granules}, demand_read_write(m));
  std::this_thread::sleep_for(std::chrono::milliseconds{100});
  body();
  is_over = true;
  launch.wait();
}

TEST_P(Pins, a_host_lease_gets_what_many_threads_keep_using) {
  World world(GetParam(), {.workers = 16});
  const Mapping m = world.map_new(Bytes(8 * kGranule));
  while_kept_pinned(world, m, std::chrono::milliseconds{50}, 4, [&] {
    const auto begin = std::chrono::steady_clock::now();
    const HostLease lease = m.host_lease(granules(0, 4), Right::read_write);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds{3});
  });
}

TEST_P(Pins, the_flusher_writes_home_what_many_threads_keep_using) {
  World world(GetParam(), {.dirty_age_max = std::chrono::milliseconds{100}, .workers = 16});
  const std::string path = world.file(Bytes(8 * kGranule));
  const Mapping m = world.map(path);
  while_kept_pinned(world, m, std::chrono::milliseconds{1}, 1, [&] {
    const Bytes before = plain_read(path, 0, sizeof(unsigned));
    EXPECT_TRUE(eventually([&] { return plain_read(path, 0, sizeof(unsigned)) != before; }));
  });
}

// Only devices with frames have pins.
using KernelPins = Contract;
APRIME_LEASING_SUITE(KernelPins);

/// In the order in which nobody else takes them.
struct TwoAtOnce {
  std::atomic<bool>* is_over;
  void operator()(device_span<unsigned> words) const {
    while (!is_over->load()) {
      const PinnedSpan<unsigned> second = words.pin_span(kWords, 1);
      __nanosleep(1000000);
      const PinnedSpan<unsigned> first = words.pin_span(0, 1);
      first[0] += 1;
      second[0] += 1;
    }
  }
};

TEST_P(KernelPins, a_host_lease_gets_granules_that_a_thread_pins_together) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(2 * kGranule));
  std::atomic<bool> is_over{false};
  const Completion launch = world.runtime().launch({{1}, {1}}, TwoAtOnce{&is_over}, demand_read_write(m));
  const SetAtEnd ends{is_over};
  std::this_thread::sleep_for(std::chrono::milliseconds{100});
  const auto begin = Clock::now();
  for (int i = 0; i < 5; ++i) {
    const HostLease lease = m.host_lease(granules(0, 2), Right::read_write);
  }
  EXPECT_LT(seconds_since(begin), 20);
  is_over = true;
  launch.wait();
}

struct PinTwoByTwo {
  std::atomic<unsigned>* rounds;
  std::atomic<bool>* is_over;
  void operator()(device_span<unsigned> words) const {
    while (!is_over->load()) {
      const PinnedSpan<unsigned> first = words.pin_span(0, 1);
      __nanosleep(100000);
      const PinnedSpan<unsigned> second = words.pin_span(kWords, 1);
      first[0] += 1;
      second[0] += 1;
      ++*rounds;
    }
  }
};

/// `act` again and again, while a thread of a kernel pins two granules and lets them go.
template <class Act>
void while_two_are_pinned(World& world, const Mapping& m, const Act& act) {
  std::atomic<bool> is_over{false};
  std::atomic<unsigned> rounds{0};
  const Completion launch =
      world.runtime().launch({{1}, {1}}, PinTwoByTwo{&rounds, &is_over}, demand_read_write(m));
  const SetAtEnd ends{is_over};
  double longest = 0;
  auto last = Clock::now();
  unsigned seen = 0;
  for (const auto begin = Clock::now(); seconds_since(begin) < 3;) {
    act();
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
    if (rounds.load() != seen) seen = rounds.load(), last = Clock::now();
    longest = std::max(longest, seconds_since(last));
  }
  EXPECT_LT(longest, 2.5);
  is_over = true;
  launch.wait();
}

TEST_P(KernelPins, the_flusher_does_not_hold_up_who_pins_two) {
  World world(GetParam(), {.dirty_age_max = std::chrono::milliseconds{50}});
  const Mapping m = world.map_new(Bytes(2 * kGranule));
  while_two_are_pinned(world, m, [] {});
}
TEST_P(KernelPins, a_sync_does_not_hold_up_who_pins_two) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(2 * kGranule));
  while_two_are_pinned(world, m, [&] { m.sync(); });
}
TEST_P(KernelPins, a_read_does_not_hold_up_who_pins_two) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(2 * kGranule));
  while_two_are_pinned(world, m, [&] { read_bytes(m); });
}

/// One thread uses a granule for long, another its neighbour all the time.
struct LongBesideShort {
  std::atomic<unsigned>* rounds;
  std::atomic<bool>* is_over;
  void operator()(device_span<unsigned> words) const {
    if (blockIdx.x == 0)
      words.with_pinned(0, 1, [&](unsigned* word, std::size_t) {
        *word += 1;
        while (!is_over->load()) std::this_thread::sleep_for(std::chrono::milliseconds{1});
      });
    else
      while (!is_over->load()) {
        words.atomic_add(kWords, 1);
        ++*rounds;
        std::this_thread::sleep_for(std::chrono::microseconds{100});
      }
  }
};
TEST_P(KernelPins, a_long_visit_and_the_flusher_hold_up_nobody_at_the_next_granule) {
  World world(GetParam(), {.dirty_age_max = std::chrono::milliseconds{50}});
  const Mapping m = world.map_new(Bytes(2 * kGranule));
  std::atomic<bool> is_over{false};
  std::atomic<unsigned> rounds{0};
  const Completion launch =
      world.runtime().launch({{2}, {1}}, LongBesideShort{&rounds, &is_over}, demand_read_write(m));
  const SetAtEnd ends{is_over};
  double longest = 0;
  auto last = Clock::now();
  unsigned seen = 0;
  for (const auto begin = Clock::now(); seconds_since(begin) < 3;) {
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
    if (rounds.load() != seen) seen = rounds.load(), last = Clock::now();
    longest = std::max(longest, seconds_since(last));
  }
  is_over = true;
  launch.wait();
  EXPECT_LT(longest, 2.5);
}

struct CatchesItsOwn {
  std::atomic<bool>* is_over;
  void operator()(device_span<unsigned> words) const {
    try {
      words.with_pinned(0, 1, [](unsigned*, std::size_t) { throw std::runtime_error("no"); });
    } catch (const std::runtime_error&) {
    }
    while (!is_over->load()) __nanosleep(100000);
  }
};

/// The kernel goes on.
TEST_P(KernelPins, what_is_thrown_and_caught_leaves_no_pin) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(kGranule));
  std::atomic<bool> is_over{false};
  const Completion launch = world.runtime().launch({{1}, {1}}, CatchesItsOwn{&is_over}, demand_read_write(m));
  const SetAtEnd ends{is_over};
  std::this_thread::sleep_for(std::chrono::milliseconds{200});
  const auto begin = Clock::now();
  read_bytes(m);
  EXPECT_LT(seconds_since(begin), 5);
  is_over = true;
  launch.wait();
}

/// Each thread of the first block keeps a granule of its own; the other block's first thread goes through
/// others meanwhile.
struct HoldAndWalk {
  std::atomic<unsigned>* held;
  std::atomic<bool>* is_over;
  std::size_t walked;

  void operator()(device_span<unsigned> pinned, device_span<const unsigned> others) const {
    if (blockIdx.x == 0) {
      const PinnedSpan<unsigned> part = pinned.pin_span(threadIdx.x * kWords, 1);
      ++*held;
      while (!is_over->load()) __nanosleep(100000);
      part[0] = 1;
    } else if (threadIdx.x == 0) {
      while (held->load() != blockDim.x) __nanosleep(100000);
      unsigned sum = 0;
      for (std::size_t g = 0; g < walked; ++g) sum += others.load(g * kWords);
      // Each word is 0.
      is_over->store(sum == 0);
    }
  }
};

/// Most of device memory is pinned, an eighth is not: those who go through a file use that.
TEST_P(KernelPins, who_goes_through_a_file_is_not_held_up_by_pins_of_others) {
  constexpr unsigned kHeld = 112;
  constexpr std::size_t kWalked = 64;
  World world(GetParam(), {.device_memory = ByteCount{128 * kGranule}, .workers = 2});
  const Mapping pinned = world.map_new(Bytes(kHeld * kGranule));
  const Mapping others = world.map_new(Bytes(kWalked * kGranule));
  std::atomic<unsigned> held{0};
  std::atomic<bool> is_over{false};
  const auto begin = Clock::now();
  world.runtime()
      .launch({{2}, {kHeld}}, HoldAndWalk{&held, &is_over, kWalked}, demand_read_write(pinned),
              demand_read(others))
      .wait();
  EXPECT_LT(seconds_since(begin), 10);
}

/// All of it is.
TEST_P(KernelPins, a_fault_for_which_there_is_no_room_fails_after_ten_seconds) {
  constexpr unsigned kHeld = 512;
  World world(GetParam(), {.device_memory = ByteCount{kHeld * kGranule}, .workers = 2});
  const Mapping pinned = world.map_new(Bytes(kHeld * kGranule));
  const Mapping others = world.map_new(Bytes(kGranule));
  std::atomic<unsigned> held{0};
  std::atomic<bool> is_over{false};
  const auto begin = Clock::now();
  const Completion launch = world.runtime().launch({{2}, {kHeld}}, HoldAndWalk{&held, &is_over, 1},
                                                   demand_read_write(pinned), demand_read(others));
  EXPECT_EQ(launch.status().code, Errc::device_memory);
  EXPECT_LT(seconds_since(begin), 20);
}

}  // namespace
}  // namespace aprime::engine
