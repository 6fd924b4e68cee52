#include <algorithm>
#include <chrono>
#include <deque>
#include <random>
#include <thread>

#include "tests/contract/contract.hpp"
#include "tests/test_scale.hpp"

// Launches that follow one another without a pause: whenever their leases are taken, each sees what the one
// before it left.

namespace aprime::contract {
namespace {

using StreamOrder = Contract;
APRIME_CONTRACT_SUITE(StreamOrder);

constexpr Grid kSome{{2}, {64}};

TEST_P(StreamOrder, two_launches_that_do_not_fit_together_follow_one_another) {
  World world(GetParam(), {.device_memory = ByteCount{64 * kGranule}});
  const Mapping m = world.map_new(pattern(120 * kGranule));
  std::vector<Completion> launches;
  for (int round = 0; round < 3; ++round)
    for (const std::uint64_t first : {0, 40, 80})
      launches.push_back(
          world.runtime().launch(kSome, IncrementBytes{}, aprime::read_write(m, granules(first, 40))));
  for (const Completion& launch : launches) EXPECT_NO_THROW(launch.wait());
  EXPECT_EQ(read_bytes(m), incremented(incremented(incremented(pattern(120 * kGranule)))));
}

TEST_P(StreamOrder, a_file_of_several_times_the_memory_streams_through) {
  World world(GetParam(), {.device_memory = ByteCount{33 * kGranule}});
  const Mapping scratch = world.map_new(Bytes(100));
  const std::string path = world.file(pattern(200 * kGranule - 7));
  const Mapping m = world.map(path);
  Completion last;
  for (std::uint64_t at = 0; at < m.size_bytes().value; at += 16 * kGranule) {
    const ByteRange r = range(at, std::min<std::uint64_t>(16 * kGranule, m.size_bytes().value - at));
    last =
        world.runtime().launch(kSome, IncrementBoth{}, aprime::read_write(scratch), aprime::read_write(m, r));
  }
  last.wait();
  EXPECT_EQ(read_bytes(scratch), constant(100, 13));
  m.sync();
  EXPECT_EQ(plain_read(path), incremented(pattern(200 * kGranule - 7)));
}

TEST_P(StreamOrder, a_launch_that_fails_does_not_hurt_its_neighbours) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(8 * kGranule));
  const std::string shrinking = world.file(pattern(8 * kGranule));
  const Mapping gone = world.map(shrinking);
  plain_truncate(shrinking, kGranule);
  const auto increment = [&] {
    return world.runtime().launch(kSome, IncrementBytes{}, aprime::read_write(m));
  };
  std::vector<Completion> good;
  std::vector<Completion> bad;
  for (int i = 0; i < 4; ++i) {
    good.push_back(increment());
    bad.push_back(world.runtime().launch_task({.device = 0, .name = "thrower"}, ThrowFromTask{},
                                              aprime::read_write(m, granules(4, 4))));
    good.push_back(increment());
    // Where its leases are taken before the kernel runs; else where it runs.
    bad.push_back(world.runtime().launch_task(
        {}, [](LeasedSpan<const Byte>) {}, aprime::read(gone, granules(2))));
    good.push_back(increment());
  }
  good.back().wait();
  for (const Completion& launch : bad) EXPECT_TRUE(launch.done()) << "in order";
  for (std::size_t i = 0; i < bad.size(); ++i)
    EXPECT_EQ(bad[i].status().code, i % 2 == 0 ? Errc::kernel_failed : Errc::out_of_range);
  for (const Completion& launch : good) EXPECT_NO_THROW(launch.wait());
  Bytes expected = pattern(8 * kGranule);
  for (int i = 0; i < 12; ++i) expected = incremented(std::move(expected));
  EXPECT_EQ(read_bytes(m), expected);
}

/// Launches on ranges that overlap in every way, and what they make of the bytes.
class Sequence {
 public:
  Sequence(World& world, unsigned seed) : world_(world), random_(seed) {
    for (unsigned f = 0; f < kFiles; ++f) {
      bytes_.push_back(pattern(kGranules * kGranule - 100, seed + f));
      files_.push_back(world.map_new(bytes_.back()));
    }
  }

  void launch() {
    const std::size_t to = below(kFiles);
    const ByteRange written = some(to);
    const auto value = static_cast<Byte>(below(256));
    switch (below(4)) {
      case 0:
        add(world_.runtime().launch(kSome, IncrementBytes{}, aprime::read_write(files_[to], written)));
        each(to, written,
             [](std::byte b) { return static_cast<std::byte>(std::to_integer<unsigned>(b) + 1); });
        break;
      case 1:
        add(world_.runtime().launch(kSome, StoreEverywhere{}, aprime::write(files_[to], written), value));
        each(to, written, [&](std::byte) { return std::byte{value}; });
        break;
      case 2: copy(to, written); break;
      default:
        add(world_.runtime().launch_task({}, ReverseBytes{}, aprime::read_write(files_[to], written)));
        std::reverse(at(to, written.first.value), at(to, written.end().value));
    }
  }

  void check() {
    for (const Completion& launch : launches_) EXPECT_NO_THROW(launch.wait());
    launches_.clear();
    for (std::size_t f = 0; f < kFiles; ++f) ASSERT_EQ(read_bytes(files_[f]), bytes_[f]) << "file " << f;
  }

 private:
  static constexpr std::size_t kFiles = 2;
  static constexpr std::uint64_t kGranules = 24;

  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  Bytes::iterator at(std::size_t file, std::uint64_t byte) {
    return bytes_[file].begin() + static_cast<std::ptrdiff_t>(byte);
  }

  /// Whole granules as often as not, and in a small part of the file as often as not.
  ByteRange some(std::size_t file) {
    const std::uint64_t size = bytes_[file].size();
    const std::uint64_t unit = below(2) == 0 ? kGranule : 64;
    const std::uint64_t first = below(below(2) == 0 ? 4 * kGranule : size) / unit * unit;
    const std::uint64_t length = (below(6 * kGranule) / unit + 1) * unit;
    return range(first, std::min(length, size - first));
  }

  void copy(std::size_t to, ByteRange written) {
    const std::size_t from = 1 - to;
    const ByteRange loaded = some(from);
    add(world_.runtime().launch(kSome, CopyBytes{}, aprime::read(files_[from], loaded),
                                aprime::read_write(files_[to], written)));
    const std::uint64_t count = std::min(loaded.size.value, written.size.value);
    std::copy_n(at(from, loaded.first.value), count, at(to, written.first.value));
  }

  template <class Change>
  void each(std::size_t file, ByteRange r, Change change) {
    std::transform(at(file, r.first.value), at(file, r.end().value), at(file, r.first.value), change);
  }

  void add(Completion launch) { launches_.push_back(std::move(launch)); }

  World& world_;
  std::mt19937_64 random_;
  std::vector<Mapping> files_;
  /// What the files hold when all launches have ended.
  std::vector<Bytes> bytes_;
  std::vector<Completion> launches_;
};

TEST_P(StreamOrder, any_sequence_of_launches_does_what_it_says) {
  const auto seed = static_cast<unsigned>(std::random_device{}());
  SCOPED_TRACE("seed " + std::to_string(seed));
  // Room for everything, for about two launches, and for one.
  for (const std::uint64_t memory : {64, 20, 16}) {
    World world(GetParam(), {.device_memory = ByteCount{memory * kGranule}});
    Sequence sequence(world, seed + static_cast<unsigned>(memory));
    for (int round = 0; round < test::scaled(16); ++round) {
      for (int i = 0; i < 12; ++i) sequence.launch();
      ASSERT_NO_FATAL_FAILURE(sequence.check());
    }
  }
}

TEST_P(StreamOrder, queues_of_two_devices_and_the_host_on_the_same_granules_lose_no_store) {
  constexpr std::uint64_t kCount = 16;
  WorldOptions options{.devices = 2, .device_memory = ByteCount{20 * kGranule}};
  options.dirty_age_max = std::chrono::milliseconds(5);
  World world(GetParam(), options);
  const Mapping a = world.map_new(Bytes(kCount * kGranule));
  const Mapping b = world.map_new(Bytes(kCount * kGranule));
  const int rounds = test::scaled(64);

  // Each device wants, one launch after the other, what the other one has at that time.
  const auto by_device = [&](unsigned device) {
    std::deque<Completion> queued;
    for (int i = 0; i < rounds; ++i)
      for (std::uint64_t step = 0; step < kCount; step += 4) {
        const std::uint64_t at = device == 0 ? step : kCount - 4 - step;
        queued.push_back(world.runtime().launch({{2}, {4}}, {.device = device, .name = {}},
                                                IncrementBothLanes{}, aprime::read_write(a, granules(at, 4)),
                                                aprime::read_write(b, granules(kCount - 4 - at, 4)), device,
                                                std::size_t{kGranule}));
        if (queued.size() < 4) continue;
        EXPECT_NO_THROW(queued.front().wait());
        queued.pop_front();
      }
    for (const Completion& launch : queued) EXPECT_NO_THROW(launch.wait());
  };
  const auto by_pointer = [&](unsigned lane) {
    for (int i = 0; i < rounds; ++i)
      for (const Mapping* m : {&a, &b}) {
        const auto host = m->host<Byte>();
        for (std::uint64_t g = 0; g < kCount; ++g) {
          volatile Byte* byte = &host[g * kGranule + lane];
          *byte = static_cast<Byte>(*byte + 1);
        }
      }
  };
  const auto by_calls = [&](unsigned lane, HostAccess how) {
    for (int i = 0; i < rounds; ++i)
      for (const Mapping* m : {&a, &b})
        for (std::uint64_t g = 0; g < kCount; ++g)
          write_bytes(*m, g * kGranule + lane,
                      incremented(read_bytes(*m, range(g * kGranule + lane, 1), how)), how);
  };
  std::vector<std::thread> threads;
  threads.emplace_back(by_device, 0);
  threads.emplace_back(by_device, 1);
  threads.emplace_back(by_pointer, 2);
  threads.emplace_back(by_calls, 3, HostAccess::migrate);
  threads.emplace_back(by_calls, 4, HostAccess::bounce);
  for (std::thread& t : threads) t.join();
  for (const Mapping* m : {&a, &b}) {
    const Bytes bytes = read_bytes(*m);
    for (std::uint64_t g = 0; g < kCount; ++g)
      for (unsigned lane = 0; lane < 5; ++lane)
        ASSERT_EQ(std::to_integer<int>(bytes[g * kGranule + lane]), rounds) << g << ", lane " << lane;
  }
}

}  // namespace
}  // namespace aprime::contract
