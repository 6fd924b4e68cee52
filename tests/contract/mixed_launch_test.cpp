#include <array>
#include <atomic>
#include <chrono>
#include <future>
#include <thread>
#include <vector>

#include "tests/contract/contract.hpp"

// Launches that lease some ranges and fault on others, on devices that want what the other one has: none
// waits for ever.

namespace aprime::contract {
namespace {

class MixedLaunches : public Contract {};
APRIME_WATCHING_SUITE(MixedLaunches);

using Flag = std::atomic<bool>;
constexpr Grid kOneThread{{1}, {1}};

/// Has its lease; faults on the other range when it is told to go on. Each device has bytes of its own: on
/// one with page faults a lease keeps nobody out.
struct IncrementBoth {
  void operator()(LeasedSpan<Byte> leased, device_span<Byte> other, unsigned device, Flag* has_begun,
                  const Flag* go) const {
    has_begun->store(true);
    while (!go->load()) std::this_thread::yield();
    leased[device] = static_cast<Byte>(leased[device] + 1);
    other.store(device, static_cast<Byte>(other.load(device) + 1));
  }
};
struct IncrementTwo {
  void operator()(LeasedSpan<Byte> one, LeasedSpan<Byte> two, unsigned device) const {
    one[device] = static_cast<Byte>(one[device] + 1);
    two[device] = static_cast<Byte>(two[device] + 1);
  }
};

/// Loads from its lease; stores to the other range.
struct StoreNext {
  void operator()(LeasedSpan<const Byte> leased, device_span<Byte> other) const {
    other.store(0, static_cast<Byte>(leased[0] + 1));
  }
};

struct LoadUntil {
  void operator()(LeasedSpan<const Byte> leased, Flag* has_begun, const Flag* go) const {
    has_begun->store(true);
    while (!go->load()) std::this_thread::yield();
    static_cast<void>(leased);
  }
};
struct CopyOne {
  void operator()(LeasedSpan<const Byte> from, LeasedSpan<Byte> to) const { to[0] = from[0]; }
};

/// Faults while it has the lock, for which the block's other threads spin.
struct IncrementUnderLock {
  void operator()(LeasedSpan<unsigned> lock, device_span<unsigned> counts) const {
    const std::size_t i = threadIdx.x * (counts.size() / blockDim.x);
    for (bool done = false; !done;) {
      if (atomicCAS(&lock[0], 0, 1) != 0) continue;
      counts.store(i, counts.load(i) + 1);
      counts.store(0, counts.load(0) + 1);
      __threadfence();
      atomicExch(&lock[0], 0);
      done = true;
    }
  }
};

/// If launches wait for each other the test has failed, and hangs then: nothing gets rid of them.
void expect_end(const Completion& launch) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!launch.done()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "launches wait for each other";
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_NO_THROW(launch.wait());
}

/// Time for what may happen meanwhile. No result depends on it.
void meanwhile() { std::this_thread::sleep_for(std::chrono::milliseconds(100)); }

struct Pair {
  explicit Pair(const Personality& personality) : world(personality, {.devices = 2}) {
    for (Mapping& m : files) m = world.map_new(Bytes(kGranule));
  }
  Completion both(unsigned device, const Mapping& leased, const Mapping& other) {
    return world.runtime().launch(kOneThread, {.device = device, .name = {}}, IncrementBoth{},
                                  aprime::read_write(leased), aprime::demand_read_write(other), device,
                                  &begun[device], static_cast<const Flag*>(&go));
  }
  void expect_stores_of_both() const {
    for (const Mapping& m : files) EXPECT_EQ(read_bytes(m, range(0, 2)), constant(2, 1));
  }

  World world;
  std::array<Mapping, 2> files;
  std::array<Flag, 2> begun{};
  Flag go{false};
};

TEST_P(MixedLaunches, each_faults_on_what_the_other_has_leased) {
  Pair p(GetParam());
  const Completion first = p.both(0, p.files[0], p.files[1]);
  const Completion second = p.both(1, p.files[1], p.files[0]);
  meanwhile();
  p.go = true;
  expect_end(first);
  expect_end(second);
  p.expect_stores_of_both();
}

TEST_P(MixedLaunches, one_faults_on_what_another_has_that_waits_for_its_lease) {
  for (const unsigned leased : {0u, 1u}) {
    Pair p(GetParam());
    const Mapping& mine = p.files[leased];
    const Mapping& other = p.files[1 - leased];
    const Completion first = p.both(0, mine, other);
    while (!p.begun[0]) std::this_thread::yield();
    const Completion second =
        p.world.runtime().launch(kOneThread, {.device = 1, .name = {}}, IncrementTwo{},
                                 aprime::read_write(mine), aprime::read_write(other), 1u);
    meanwhile();
    p.go = true;
    expect_end(first);
    expect_end(second);
    p.expect_stores_of_both();
  }
}

TEST_P(MixedLaunches, leases_of_one_file_at_both_ends_and_faults_between) {
  Pair p(GetParam());
  const Mapping m = p.world.map_new(Bytes(4 * kGranule));
  const auto launch = [&](unsigned device, std::uint64_t leased, std::uint64_t other) {
    return p.world.runtime().launch(kOneThread, {.device = device, .name = {}}, IncrementBoth{},
                                    aprime::read_write(m, granules(leased)),
                                    aprime::demand_read_write(m, granules(other)), device, &p.begun[device],
                                    static_cast<const Flag*>(&p.go));
  };
  const Completion first = launch(0, 0, 3);
  const Completion second = launch(1, 3, 0);
  meanwhile();
  p.go = true;
  expect_end(first);
  expect_end(second);
  for (const std::uint64_t g : {0, 3}) EXPECT_EQ(read_bytes(m, range(g * kGranule, 2)), constant(2, 1)) << g;
}

TEST_P(MixedLaunches, leases_and_faults_in_one_granule) {
  World world(GetParam());
  const Mapping m = world.map_new(constant(kGranule, 1));
  expect_end(world.runtime().launch(kOneThread, StoreNext{}, aprime::read(m, range(0, 8)),
                                    aprime::demand_read_write(m, range(8, 8))));
  EXPECT_EQ(read_bytes(m), with(constant(kGranule, 1), 8, 1, 2));
}

TEST_P(MixedLaunches, host_leases_what_one_has_leased_and_what_it_faults_on) {
  Pair p(GetParam());
  const Mapping m = p.world.map_new(Bytes(4 * kGranule));
  const Completion launch = p.world.runtime().launch(
      kOneThread, IncrementBoth{}, aprime::read_write(m, granules(2)),
      aprime::demand_read_write(m, granules(0)), 0u, p.begun.data(), static_cast<const Flag*>(&p.go));
  while (!p.begun[0]) std::this_thread::yield();
  std::thread host([&] {
    const HostLease lease = m.host_lease(all_of(m), Right::read_write);
    for (const std::uint64_t g : {0, 2}) lease.bytes()[g * kGranule] |= std::byte{2};
  });
  meanwhile();
  p.go = true;
  expect_end(launch);
  host.join();
  for (const std::uint64_t g : {0, 2}) EXPECT_EQ(read_bytes(m, range(g * kGranule, 1)), constant(1, 3)) << g;
}

// A launch waits for room, which a granule takes that the CPU is about to have, which waits for a launch that
// has it leased, which waits for what the first one has.
TEST_P(MixedLaunches, one_that_waits_for_room_keeps_nothing_that_others_wait_for) {
  World world(GetParam(), {.devices = 3, .device_memory = ByteCount{16 * kGranule}});
  const Mapping m = world.map_new(Bytes(40 * kGranule));
  constexpr std::uint64_t kFirst = 0, kSecond = 1, kWanted = 5;
  // All that the first device has room for, beside what the loads leave behind.
  for (const ByteRange& r : {granules(kFirst), granules(kSecond), granules(26, 12), granules(kWanted)})
    world.touch_on_device(m, r);
  const auto store = [&](std::uint64_t g) {
    return std::async(std::launch::async,
                      [&m, g] { *static_cast<volatile Byte*>(&m.host<Byte>()[g * kGranule]) = Byte{1}; });
  };
  Flag has_begun{false}, go{false};
  const Completion running =
      world.runtime().launch(kOneThread, {.device = 1, .name = {}}, LoadUntil{},
                             aprime::read(m, granules(kFirst)), &has_begun, static_cast<const Flag*>(&go));
  while (!has_begun) std::this_thread::yield();
  const std::future<void> first_store = store(kFirst);
  meanwhile();
  const Completion large = world.runtime().launch(kOneThread, {.device = 0, .name = {}}, IncrementTwo{},
                                                  aprime::read_write(m, granules(kWanted)),
                                                  aprime::read_write(m, granules(10, 13)), 0u);
  meanwhile();
  const Completion waiting =
      world.runtime().launch(kOneThread, {.device = 2, .name = {}}, CopyOne{},
                             aprime::read(m, granules(kSecond)), aprime::read_write(m, granules(kWanted)));
  meanwhile();
  const std::future<void> second_store = store(kSecond);
  meanwhile();
  go = true;
  for (const Completion* launch : {&running, &large, &waiting}) expect_end(*launch);
}

TEST_P(MixedLaunches, a_thread_may_fault_while_others_of_its_block_spin_on_its_lock) {
  World world(GetParam());
  const Mapping lock = world.map_new(Bytes(kGranule));
  const Mapping counts = world.map_new(Bytes(8 * kGranule));
  expect_end(world.runtime().launch({{1}, {64}}, IncrementUnderLock{}, aprime::read_write(lock),
                                    demand_read_write(counts)));
  EXPECT_EQ(counts.host<const unsigned>()[0], 65U);
  EXPECT_EQ(counts.host<const unsigned>()[63 * (counts.size<unsigned>() / 64)], 1U);
}

}  // namespace
}  // namespace aprime::contract
