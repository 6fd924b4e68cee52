#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <thread>

#include "tests/contract/contract.hpp"

// The leases of the next launch are taken while one runs: when they are, and when they must not be.

namespace aprime::contract {
namespace {

using Streaming = Contract;
APRIME_CONTRACT_SUITE(Streaming);
class LeasedStreaming : public Contract {};
APRIME_LEASING_SUITE(LeasedStreaming);
class WatchedStreaming : public Contract {};
APRIME_WATCHING_SUITE(WatchedStreaming);

using Go = std::atomic<bool>;

/// Runs until it is told to go on.
struct WaitToIncrement {
  void operator()(LeasedSpan<Byte> bytes, const Go* go) const {
    while (!go->load()) std::this_thread::yield();
    for (std::size_t i = first_index(); i < bytes.size(); i += index_step())
      bytes[i] = static_cast<Byte>(bytes[i] + 1);
  }
};
struct WaitToLoad {
  void operator()(LeasedSpan<const Byte> bytes, const Go* go) const {
    while (!go->load()) std::this_thread::yield();
    static_cast<void>(bytes);
  }
};
struct WaitToStoreAt {
  void operator()(LeasedSpan<Byte> bytes, std::ptrdiff_t distance, const Go* go) const {
    while (!go->load()) std::this_thread::yield();
    *static_cast<volatile Byte*>(bytes.data() + distance) = 1;
  }
};
struct WaitOnDemand {
  void operator()(device_span<const Byte> bytes, const Go* go) const {
    while (!go->load()) std::this_thread::yield();
    static_cast<void>(bytes.load(0));
  }
};
struct LoadBeside {
  APRIME_DEVICE void operator()(LeasedSpan<const Byte>, device_span<const Byte> more) const {
    static_cast<void>(more.load(0));
  }
};

constexpr Grid kOneThread{{1}, {1}};
constexpr Grid kSome{{2}, {64}};

/// Lets every kernel go on at the end, whatever became of the test.
class GoAtTheEnd {
 public:
  explicit GoAtTheEnd(Go& go) : go_(go) {}
  ~GoAtTheEnd() { go_ = true; }
  GoAtTheEnd(const GoAtTheEnd&) = delete;
  GoAtTheEnd& operator=(const GoAtTheEnd&) = delete;

 private:
  Go& go_;
};

bool is_on_device(const Mapping& m, std::uint64_t granule) { return report(m, granule).devices != 0; }

/// Long enough for what must not happen to happen, as a rule.
bool happens_soon(const std::function<bool()>& condition) {
  for (int i = 0; i < 20; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

TEST_P(Streaming, the_next_launchs_bytes_arrive_while_one_runs) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(8 * kGranule));
  Go go{false};
  const GoAtTheEnd at_the_end(go);
  const Completion first =
      world.runtime().launch(kOneThread, WaitToIncrement{}, aprime::read_write(m, granules(0, 4)), &go);
  const Completion second =
      world.runtime().launch(kSome, IncrementBytes{}, aprime::read_write(m, granules(4, 4)));
  const auto has_arrived = [&] { return is_on_device(m, 4) && is_on_device(m, 7); };
  if (world.hardware_paged())
    EXPECT_FALSE(happens_soon(has_arrived)) << "its kernels fault for what they touch";
  else
    EXPECT_TRUE(eventually(has_arrived));
  EXPECT_FALSE(first.done());
  EXPECT_FALSE(second.done());
  go = true;
  second.wait();
  EXPECT_TRUE(first.done());
  EXPECT_EQ(read_bytes(m), incremented(pattern(8 * kGranule)));
}

TEST_P(LeasedStreaming, what_has_to_leave_is_copied_home_while_one_runs) {
  World world(GetParam(), {.device_memory = ByteCount{32 * kGranule}});
  const Mapping m = world.map_new(pattern(48 * kGranule));
  world.increment_on_device(m, granules(0, 16));
  Go go{false};
  const GoAtTheEnd at_the_end(go);
  const Completion first =
      world.runtime().launch(kOneThread, WaitToIncrement{}, aprime::read_write(m, granules(16, 16)), &go);
  const Completion second =
      world.runtime().launch(kSome, IncrementBytes{}, aprime::read_write(m, granules(32, 16)));
  EXPECT_TRUE(eventually([&] { return is_on_device(m, 47); }));
  EXPECT_FALSE(is_on_device(m, 0));
  EXPECT_TRUE(is_on_device(m, 16)) << "what runs keeps what it has";
  go = true;
  second.wait();
  EXPECT_EQ(read_bytes(m), incremented(pattern(48 * kGranule)));
}

TEST_P(Streaming, tasks_are_placed_ahead_like_kernels) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(2 * kGranule));
  Go go{false};
  const GoAtTheEnd at_the_end(go);
  const auto wait = [&go](LeasedSpan<Byte>) {
    while (!go) std::this_thread::yield();
  };
  const auto increment = [](LeasedSpan<Byte> bytes) {
    for (Byte& b : bytes) b = static_cast<Byte>(b + 1);
  };
  world.runtime().launch_task({}, wait, aprime::read_write(m, granules(0)));
  const Completion last = world.runtime().launch_task({}, increment, aprime::read_write(m, granules(1)));
  if (world.hardware_paged())
    EXPECT_FALSE(happens_soon([&] { return is_on_device(m, 1); })) << "a kernel before it might need frames";
  else
    EXPECT_TRUE(eventually([&] { return is_on_device(m, 1); }));
  go = true;
  last.wait();
  EXPECT_EQ(read_bytes(m, granules(1)), incremented(part(pattern(2 * kGranule), kGranule, kGranule)));
}

TEST_P(Streaming, scratch_that_every_piece_leases_is_shared) {
  World world(GetParam());
  const Mapping scratch = world.map_new(Bytes(kGranule));
  const Mapping m = world.map_new(pattern(8 * kGranule));
  Go go{false};
  const GoAtTheEnd at_the_end(go);
  world.runtime().launch(kOneThread, WaitToIncrement{}, aprime::read_write(scratch), &go);
  const Completion second = world.runtime().launch(kSome, IncrementBoth{}, aprime::read_write(scratch),
                                                   aprime::read_write(m, granules(0, 4)));
  const Completion third = world.runtime().launch(kSome, IncrementBoth{}, aprime::write(scratch),
                                                  aprime::read_write(m, granules(4, 4)));
  if (!world.hardware_paged()) {
    EXPECT_TRUE(eventually([&] { return is_on_device(m, 3); }));
    EXPECT_FALSE(happens_soon([&] { return is_on_device(m, 4); })) << "one launch ahead, and not two";
  }
  go = true;
  third.wait();
  EXPECT_EQ(read_bytes(scratch), constant(kGranule, 3)) << "each saw what the one before had stored";
  EXPECT_EQ(read_bytes(m), incremented(pattern(8 * kGranule)));
}

TEST_P(LeasedStreaming, a_running_launchs_granules_keep_their_place_and_their_right) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(8 * kGranule));
  const Mapping other = world.map_new(pattern(kGranule));
  const auto refused = [&](auto lease, ByteRange read_by_the_first) {
    Go go{false};
    const GoAtTheEnd at_the_end(go);
    world.touch_on_device(m, read_by_the_first);
    world.runtime().launch(kOneThread, WaitToLoad{}, aprime::read(m, read_by_the_first), &go);
    const Completion second =
        world.runtime().launch(kSome, IncrementBoth{}, lease, aprime::read_write(other));
    EXPECT_FALSE(happens_soon([&] { return report(other, 0).place == Place::device; }))
        << "it cannot have all that it wants";
    // Who had to wait for the second launch would wait for ever.
    std::atomic<bool> was_read{false};
    std::thread reader([&] {
      EXPECT_EQ(seen_by_pointer(m, read_by_the_first), read_bytes(m, read_by_the_first));
      was_read = true;
    });
    EXPECT_TRUE(eventually([&] { return was_read.load(); })) << "the host may read what a device only reads";
    go = true;
    reader.join();
    second.wait();
    // Everything comes home, for the next one to begin with.
    write_bytes(other, 0, read_bytes(other));
    write_bytes(m, 0, read_bytes(m));
  };
  refused(aprime::read_write(m, granules(0, 4)), granules(0, 4));
  refused(aprime::write(m, granules(1)), granules(0, 4));
  refused(aprime::read_write(m, granules(2, 4)), granules(0, 4));
  refused(aprime::read_write(m), granules(2, 2));
  Bytes expected = pattern(8 * kGranule);
  for (const ByteRange r : {granules(0, 4), granules(1), granules(2, 4), granules(0, 8)})
    for (std::size_t i = r.first.value; i < r.end().value; ++i)
      expected[i] = static_cast<std::byte>(std::to_integer<unsigned>(expected[i]) + 1);
  EXPECT_EQ(read_bytes(m), expected);
  EXPECT_EQ(part(read_bytes(other), 0, 1),
            Bytes{static_cast<std::byte>(std::to_integer<unsigned>(pattern(kGranule)[0]) + 4)});
}

TEST_P(Streaming, kernels_that_fault_have_the_device_to_themselves) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(4 * kGranule));
  const auto not_ahead = [&](auto launch_first, auto launch_second) {
    Go go{false};
    const GoAtTheEnd at_the_end(go);
    launch_first(&go);
    const Completion second = launch_second();
    EXPECT_FALSE(happens_soon([&] { return is_on_device(m, 1); }));
    go = true;
    second.wait();
    write_bytes(m, 0, pattern(4 * kGranule));
  };
  not_ahead(
      [&](const Go* go) {
        world.runtime().launch(kOneThread, WaitOnDemand{}, aprime::demand_read(m, granules(0)), go);
      },
      [&] { return world.runtime().launch(kSome, IncrementBytes{}, aprime::read_write(m, granules(1))); });
  not_ahead(
      [&](const Go* go) {
        world.runtime().launch(kOneThread, WaitToLoad{}, aprime::read(m, granules(0)), go);
      },
      [&] {
        return world.runtime().launch(kOneThread, LoadBeside{}, aprime::read(m, granules(1)),
                                      aprime::demand_read(m, granules(2)));
      });
}

TEST_P(LeasedStreaming, too_much_for_the_device_is_told_by_the_launch_that_wants_it) {
  World world(GetParam(), {.device_memory = ByteCount{32 * kGranule}});
  const Mapping m = world.map_new(pattern(40 * kGranule));
  Go go{false};
  const GoAtTheEnd at_the_end(go);
  const Completion first =
      world.runtime().launch(kOneThread, WaitToIncrement{}, aprime::read_write(m, granules(0, 30)), &go);
  const Completion second = world.runtime().launch(kSome, IncrementBytes{}, aprime::read_write(m));
  const Completion third =
      world.runtime().launch(kSome, IncrementBytes{}, aprime::read_write(m, granules(0, 32)));
  EXPECT_FALSE(happens_soon([&] { return second.done(); })) << "not before its turn";
  go = true;
  EXPECT_EQ(second.status().code, Errc::device_memory);
  EXPECT_TRUE(first.done());
  EXPECT_NO_THROW(third.wait());
  EXPECT_EQ(part(read_bytes(m), 0, 1), part(incremented(incremented(pattern(16))), 0, 1));
}

TEST_P(LeasedStreaming, a_file_that_shrinks_waits_for_the_launch_that_has_its_leases) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(kGranule));
  const std::string path = world.file(pattern(8 * kGranule));
  const Mapping shrinking = world.map(path);
  Mapping same = world.map(path);
  Go go{false};
  const GoAtTheEnd at_the_end(go);
  world.runtime().launch(kOneThread, WaitToIncrement{}, aprime::read_write(m), &go);
  const Completion before = world.runtime().launch(kSome, IncrementBytes{}, aprime::read_write(shrinking));
  EXPECT_TRUE(eventually([&] { return is_on_device(shrinking, 7); }));
  std::atomic<bool> has_shrunk{false};
  std::thread shrinker([&] {
    same.resize(ByteCount{2 * kGranule + 100});
    has_shrunk = true;
  });
  EXPECT_FALSE(happens_soon([&] { return has_shrunk.load(); })) << "the copies are leased";
  const Completion after =
      world.runtime().launch(kSome, IncrementBytes{}, aprime::read_write(shrinking, granules(4)));
  go = true;
  shrinker.join();
  EXPECT_NO_THROW(before.wait());
  static_cast<void>(after.status());  // it may have come before
  EXPECT_EQ(world.runtime()
                .launch_task(
                    {}, [](LeasedSpan<Byte>) {}, aprime::read_write(shrinking, granules(4)))
                .status()
                .code,
            Errc::out_of_range);
  EXPECT_EQ(read_bytes(same), incremented(part(pattern(8 * kGranule), 0, 2 * kGranule + 100)));
  same.sync();
  EXPECT_EQ(plain_read(path), incremented(part(pattern(8 * kGranule), 0, 2 * kGranule + 100)));
}

TEST_P(WatchedStreaming, what_the_next_launch_leased_the_running_one_may_not_touch) {
  World world(GetParam());
  const std::string path = world.file(pattern(2 * kGranule));
  const Mapping m = world.map(path);
  Go go{false};
  const GoAtTheEnd at_the_end(go);
  const Completion first = world.runtime().launch(
      kOneThread, WaitToStoreAt{}, aprime::read_write(m, granules(0)), std::ptrdiff_t{kGranule + 3}, &go);
  const Completion second =
      world.runtime().launch(kSome, IncrementBytes{}, aprime::read_write(m, granules(1)));
  if (world.hardware_paged()) {
    go = true;
    EXPECT_TRUE(first.status().is_ok()) << "hardware takes what the mapping allows";
    return;
  }
  EXPECT_TRUE(eventually([&] { return is_on_device(m, 1); }));
  go = true;
  EXPECT_EQ(first.status().code, Errc::out_of_range) << "the frame beside its own is the next launch's";
  EXPECT_EQ(first.status().path, path);
  EXPECT_EQ(first.status().offset.value, kGranule + 3);
  EXPECT_NO_THROW(second.wait());
  EXPECT_EQ(read_bytes(m, granules(1)), incremented(part(pattern(2 * kGranule), kGranule, kGranule)));
}

}  // namespace
}  // namespace aprime::contract
