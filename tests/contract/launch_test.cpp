#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <deque>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/contract/contract.hpp"

// Launches: order, leases, and the ways in which a kernel can fail.

namespace aprime::contract {
namespace {

using Launch = Contract;
APRIME_CONTRACT_SUITE(Launch);
class Watched : public Contract {};
APRIME_WATCHING_SUITE(Watched);

bool contains(const std::string& text, const std::string& what) {
  return text.find(what) != std::string::npos;
}

/// Threads of this process that would take a SIGTERM; not those of a GPU's driver.
std::vector<std::string> threads_that_take_signals() {
  std::vector<std::string> found;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream status(thread.path() / "status");
    std::string name;
    unsigned long long blocked = 0;
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("Name:")) name = line.substr(6);
      if (line.starts_with("SigBlk:")) blocked = std::stoull(line.substr(8), nullptr, 16);
    }
    if ((blocked >> (SIGTERM - 1) & 1) == 0 && !name.starts_with("cuda"))
      found.push_back(thread.path().filename());
  }
  return found;
}

TEST_P(Launch, the_programs_signals_are_taken_by_no_thread_of_the_library) {
  const auto before = threads_that_take_signals();
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(8 * kGranule));
  m.sync();
  world.increment_on_device(m, all_of(m));
  world.runtime().launch_task({}, RequireNonZero{}, aprime::read(m)).wait();
  EXPECT_EQ(threads_that_take_signals(), before);
}

TEST_P(Launch, launches_on_a_device_run_in_order) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(8 * kGranule));
  std::vector<Completion> launches;
  for (unsigned i = 0; i < 20; ++i) {
    launches.push_back(world.runtime().launch({{2}, {64}}, IncrementBytes{}, aprime::read_write(m)));
    if (i == 9)
      launches.push_back(
          world.runtime().launch({{2}, {64}}, StoreEverywhere{}, aprime::write(m, granules(0)), Byte{100}));
  }
  launches.back().wait();
  for (const Completion& launch : launches) EXPECT_TRUE(launch.done());
  EXPECT_EQ(read_bytes(m), with(constant(8 * kGranule, 20), 0, kGranule, 110));
}

TEST_P(Launch, a_launch_keeps_its_mapping_alive) {
  World world(GetParam());
  const std::string path = world.file(Bytes(8 * kGranule));
  Completion last;
  {
    const Mapping m = world.map(path);
    for (int i = 0; i < 5; ++i)
      last = world.runtime().launch({{2}, {64}}, IncrementBytes{}, aprime::read_write(m));
  }
  last.wait();
  EXPECT_TRUE(eventually([&] { return plain_read(path) == constant(8 * kGranule, 5); }));
}

TEST_P(Launch, an_argument_may_outlive_the_handle_that_it_was_made_of) {
  World world(GetParam());
  const std::string path = world.file(Bytes(2 * kGranule));
  std::optional<Mapping> first(world.map(path));
  const auto whole = aprime::read_write(*first);
  const Mapping moved = std::move(*first);
  first.reset();
  world.runtime().launch({{2}, {64}}, IncrementBytes{}, whole).wait();
  EXPECT_EQ(read_bytes(moved), constant(2 * kGranule, 1));
}

TEST_P(Launch, an_argument_whose_mapping_has_ended_is_refused) {
  World world(GetParam());
  const std::string path = world.file(Bytes(2 * kGranule));
  const auto ended = [&] {
    const Mapping m = world.map(path);
    return aprime::read_write(m);
  }();
  Mapping m = world.map(path);
  const auto closed = aprime::read_write(m);
  m.close();
  for (const auto& gone : {ended, closed}) {
    const Error refused = error_of([&] {
      world.runtime().launch({{2}, {64}}, IncrementBytes{}, gone).wait();
    });
    EXPECT_EQ(refused.code(), Errc::invalid_argument);
    EXPECT_TRUE(contains(refused.what(), "IncrementBytes")) << refused.what();
  }
  EXPECT_EQ(plain_read(path), Bytes(2 * kGranule));
}

TEST_P(Launch, a_dropped_completion_does_not_stop_the_launch) {
  World world(GetParam());
  const std::string path = world.file(Bytes(2 * kGranule));
  Mapping m = world.map(path);
  world.runtime().launch({{2}, {64}}, IncrementBytes{}, aprime::read_write(m));
  m.close();
  EXPECT_EQ(plain_read(path), constant(2 * kGranule, 1)) << "closing waits for it";
}

TEST_P(Launch, devices_run_their_launches_side_by_side) {
  World world(GetParam(), {.devices = 2});
  const Mapping m = world.map_new(Bytes(16 * kGranule));
  std::vector<Completion> launches;
  for (unsigned i = 0; i < 20; ++i)
    launches.push_back(world.runtime().launch({{2}, {64}}, {.device = i % 2, .name = {}}, IncrementBytes{},
                                              aprime::read_write(m, granules(i % 2 * 8, 8))));
  for (const Completion& launch : launches) EXPECT_NO_THROW(launch.wait());
  EXPECT_EQ(read_bytes(m), constant(16 * kGranule, 10));
}

TEST_P(Launch, atomics_of_two_devices_on_one_word_lose_nothing) {
  World world(GetParam(), {.devices = 2});
  const Mapping m = world.map_new(Bytes(kGranule));
  for (unsigned i = 0; i < 10; ++i)
    world.runtime().launch({{2}, {32}}, {.device = i % 2, .name = {}}, AtomicIncrement{},
                           aprime::read_write(m), std::size_t{0});
  const Completion last = world.runtime().launch({{1}, {1}}, {.device = 0, .name = {}}, AtomicIncrement{},
                                                 aprime::read_write(m), std::size_t{0});
  world.runtime()
      .launch({{1}, {1}}, {.device = 1, .name = {}}, AtomicIncrement{}, aprime::read_write(m), std::size_t{0})
      .wait();
  last.wait();
  EXPECT_EQ(m.host<const unsigned>()[0], 10 * 64 + 2);
}

TEST_P(Launch, several_leases_on_one_granule_are_one) {
  World world(GetParam());
  const Bytes before = pattern(2 * kGranule);
  const Mapping m = world.map_new(before);
  world.runtime()
      .launch({{1}, {64}}, CopyBytes{}, aprime::read(m, range(0, 1000)),
              aprime::read_write(m, range(1000, 1000)))
      .wait();
  Bytes expected = before;
  std::copy_n(before.begin(), 1000, expected.begin() + 1000);
  EXPECT_EQ(read_bytes(m), expected);

  // Copies a whole granule onto itself: one request reads what the other replaces.
  world.runtime().launch({{1}, {1}}, CopyBytes{}, aprime::read(m), aprime::write(m)).wait();
  EXPECT_EQ(read_bytes(m), expected);

  world.runtime()
      .launch({{1}, {64}}, CopyBytes{}, aprime::read(m, range(0, kGranule + 500)),
              aprime::write(m, range(kGranule + 500, 200)))
      .wait();
  std::copy_n(expected.begin(), 200, expected.begin() + kGranule + 500);
  EXPECT_EQ(read_bytes(m), expected);
}

TEST_P(Launch, bytes_between_two_write_leases_are_kept) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(2 * kGranule));
  world.runtime()
      .launch({{1}, {64}}, StoreBoth{}, aprime::write(m, range(0, 1000)),
              aprime::write(m, range(3000, kGranule)), Byte{7})
      .wait();
  const Bytes expected = with(with(pattern(2 * kGranule), 0, 1000, 7), 3000, kGranule, 7);
  EXPECT_EQ(read_bytes(m), expected);
  world.runtime()
      .launch({{1}, {64}}, StoreBoth{}, aprime::write(m, range(500, 100)), aprime::write(m, range(100, 10)),
              Byte{8})
      .wait();
  EXPECT_EQ(read_bytes(m), with(with(expected, 500, 100, 8), 100, 10, 8)) << "in any order";
}

TEST_P(Launch, a_write_lease_fills_nothing_but_the_ends) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(8 * kGranule + 100));
  Delta delta(world);
  world.runtime().launch({{2}, {64}}, StoreEverywhere{}, aprime::write(m, granules(1, 3)), Byte{1}).wait();
  EXPECT_EQ(delta.get().bytes_filled, 0);
  EXPECT_EQ(delta.get().faults.device_write, 0);
  world.runtime()
      .launch({{2}, {64}}, StoreStrided{}, aprime::write(m, granules(4)), std::size_t{64}, Byte{2})
      .wait();
  EXPECT_EQ(delta.get().bytes_filled, 0);
  for (const std::byte b : read_bytes(m, granules(4)))
    ASSERT_TRUE(b == std::byte{2} || b == std::byte{0}) << "what was not stored reads as zero";

  world.runtime()
      .launch({{2}, {64}}, StoreEverywhere{}, aprime::write(m, range(6 * kGranule - 10, 2 * kGranule + 110)),
              Byte{3})
      .wait();
  EXPECT_EQ(delta.get().bytes_filled, kGranule)
      << "the first granule keeps bytes; the last is stored to the file's end";
  EXPECT_EQ(read_bytes(m, granules(5, 3)), with(part(pattern(8 * kGranule + 100), 5 * kGranule, 3 * kGranule),
                                                kGranule - 10, 2 * kGranule + 10, 3));
}

TEST_P(Launch, leases_larger_than_device_memory_say_how_much_is_needed) {
  World world(GetParam(), {.device_memory = ByteCount{32 * kGranule}});
  const Mapping m = world.map_new(pattern(40 * kGranule));
  const DeviceFaultStatus task = world.runtime()
                                     .launch_task(
                                         {}, [](LeasedSpan<const Byte>) {}, aprime::read(m))
                                     .status();
  EXPECT_EQ(task.code, Errc::device_memory);
  EXPECT_TRUE(contains(task.message, std::to_string(40 * kGranule))) << task.message;
  EXPECT_TRUE(contains(task.message, std::to_string(32 * kGranule))) << task.message;

  const DeviceFaultStatus kernel =
      world.runtime().launch({{2}, {64}}, IncrementBytes{}, aprime::read_write(m)).status();
  if (world.hardware_paged()) {
    EXPECT_TRUE(kernel.is_ok()) << "it takes what it touches: " << kernel.message;
    EXPECT_EQ(read_bytes(m), incremented(pattern(40 * kGranule)));
  } else {
    EXPECT_EQ(kernel.code, Errc::device_memory);
    EXPECT_EQ(read_bytes(m), pattern(40 * kGranule));
  }
  world.increment_on_device(m, granules(0, 30));
}

TEST_P(Launch, a_task_runs_once_over_resident_bytes_in_order_with_kernels) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(4 * kGranule + 50));
  world.runtime().launch({{2}, {64}}, IncrementBytes{}, aprime::read_write(m));
  const Completion task =
      world.runtime().launch_task({.device = 0, .name = "double"}, DoubleBytes{}, aprime::read_write(m));
  world.runtime().launch({{2}, {64}}, IncrementBytes{}, aprime::read_write(m)).wait();
  EXPECT_TRUE(task.done());
  Bytes expected = incremented(pattern(4 * kGranule + 50));
  for (std::byte& b : expected) b <<= 1;
  EXPECT_EQ(read_bytes(m), incremented(expected));
}

TEST_P(Launch, arguments_of_any_type_that_can_be_copied_arrive) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(kGranule));
  static const char text[] = "a literal is an array, too";
  world.runtime()
      .launch({{1}, {1}}, NoteArguments{}, text, Words{1, 2}, Labelled{4}, aprime::read_write(m))
      .wait();
  EXPECT_EQ(m.host<const std::uint64_t>()[0], reinterpret_cast<std::uintptr_t>(&text));
  EXPECT_EQ(m.host<const std::uint64_t>()[1], 7U);
  unsigned sum = 0;
  world.runtime().launch_task({}, TellSum{&sum}, Words{1, 2}).wait();
  EXPECT_EQ(sum, 3U) << "a pair alone is not taken apart";
}

TEST_P(Launch, what_a_task_throws_is_its_completion) {
  World world(GetParam());
  const Completion task = world.runtime().launch_task({.device = 0, .name = "thrower"}, ThrowFromTask{});
  const DeviceFaultStatus status = task.status();
  EXPECT_EQ(status.code, Errc::kernel_failed);
  EXPECT_EQ(status.kernel, "thrower");
  EXPECT_TRUE(contains(status.message, "thrower")) << status.message;
  EXPECT_TRUE(contains(status.message, "no luck")) << status.message;
  EXPECT_EQ(code_of([&] { task.wait(); }), Errc::kernel_failed);
}

/// Exceptions in device code exist on emulated devices only.
struct ThrowInOneThread {
  void operator()(LeasedSpan<Byte> bytes) const {
    bytes[first_index()] = 1;
    if (first_index() == 70) throw std::runtime_error("thread 70 had enough");
  }
};

TEST_P(Watched, emulated_an_exception_in_a_kernel_ends_the_launch) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(kGranule));
  const DeviceFaultStatus status =
      world.runtime().launch({{2}, {64}}, ThrowInOneThread{}, aprime::read_write(m)).status();
  EXPECT_EQ(status.code, Errc::kernel_failed);
  EXPECT_EQ(status.kernel, "ThrowInOneThread");
  EXPECT_TRUE(contains(status.message, "thread 70 had enough")) << status.message;
  world.store_on_device(m, all_of(m), 9);
  EXPECT_EQ(read_bytes(m), constant(kGranule, 9)) << "the device goes on";
}

TEST_P(Launch, an_impossible_grid_is_refused_in_words) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(kGranule));
  for (const Grid& grid : {Grid{{0}, {1}}, Grid{{1}, {1025}}, Grid{{1}, {1}, shared_bytes_max + 1}}) {
    const Error refused = error_of(
        [&] { world.runtime().launch(grid, StoreEverywhere{}, aprime::read_write(m), Byte{1}).wait(); });
    EXPECT_EQ(refused.code(), Errc::invalid_argument);
    EXPECT_TRUE(contains(refused.what(), grid.problem())) << refused.what();
    EXPECT_TRUE(contains(refused.what(), "StoreEverywhere")) << refused.what();
  }
  EXPECT_EQ(read_bytes(m), Bytes(kGranule));
}

TEST_P(Watched, a_store_to_a_file_mapped_for_reading_stops_the_kernel) {
  World world(GetParam());
  const std::string path = world.file(pattern(2 * kGranule));
  const Mapping m = world.map(path, Access::read);
  const DeviceFaultStatus status =
      world.runtime()
          .launch({{1}, {1}}, {.device = 0, .name = "scribble"}, StoreThroughReadLease{}, aprime::read(m),
                  std::size_t{kGranule + 5}, Byte{1})
          .status();
  EXPECT_EQ(status.code, Errc::access_denied);
  EXPECT_TRUE(status.was_write);
  EXPECT_EQ(status.path, path);
  EXPECT_EQ(status.offset.value, kGranule + 5);
  for (const std::string& word :
       {std::string("scribble"), path, std::to_string(kGranule + 5), std::string("stored")})
    EXPECT_TRUE(contains(status.message, word)) << status.message;
  EXPECT_EQ(world.seen_by_device(m), pattern(2 * kGranule));
  EXPECT_EQ(plain_read(path), pattern(2 * kGranule));
}

TEST_P(Watched, without_a_lease_a_software_paged_kernel_may_touch_nothing) {
  World world(GetParam());
  const std::string path = world.file(pattern(4 * kGranule));
  const Mapping m = world.map(path);
  const auto launch = [&](auto kernel, const auto& lease, auto place) {
    return world.runtime()
        .launch({{1}, {1}}, {.device = 0, .name = "stray"}, kernel, lease, place, Byte{1})
        .status();
  };
  const DeviceFaultStatus under_read_lease =
      launch(StoreThroughReadLease{}, aprime::read(m, granules(1)), std::size_t{3});
  // Its neighbour in the file lies beside it in device memory, but was leased to an earlier launch.
  world.touch_on_device(m, all_of(m));
  const DeviceFaultStatus outside =
      launch(StoreAt{}, aprime::read_write(m, granules(1)), std::ptrdiff_t{kGranule + 3});
  if (world.hardware_paged()) {
    EXPECT_TRUE(under_read_lease.is_ok())
        << "hardware takes what the mapping allows: " << under_read_lease.message;
    EXPECT_TRUE(outside.is_ok()) << outside.message;
    return;
  }
  EXPECT_EQ(under_read_lease.code, Errc::access_denied);
  EXPECT_EQ(under_read_lease.path, path);
  EXPECT_EQ(under_read_lease.offset.value, kGranule + 3);
  EXPECT_TRUE(under_read_lease.was_write);
  for (const std::string& word :
       {std::string("stray"), path, std::to_string(kGranule + 3), std::string("read lease")})
    EXPECT_TRUE(contains(under_read_lease.message, word)) << under_read_lease.message;
  EXPECT_EQ(outside.code, Errc::out_of_range);
  EXPECT_EQ(outside.path, path);
  EXPECT_EQ(outside.offset.value, 2 * kGranule + 3);
  EXPECT_TRUE(contains(outside.message, "stray")) << outside.message;
  EXPECT_TRUE(contains(outside.message, "outside any lease")) << outside.message;
  EXPECT_EQ(read_bytes(m), pattern(4 * kGranule));
}

TEST_P(Watched, an_access_beyond_every_file_stops_the_kernel) {
  World world(GetParam());
  const std::string path = world.file(pattern(kGranule));
  const Mapping m = world.map(path);
  const DeviceFaultStatus status =
      world.runtime()
          .launch({{1}, {1}}, {.device = 0, .name = "far"}, StoreAt{}, aprime::read_write(m),
                  std::ptrdiff_t{std::ptrdiff_t{kGranule} + 3}, Byte{1})
          .status();
  EXPECT_EQ(status.code, Errc::out_of_range);
  EXPECT_TRUE(status.was_write);
  EXPECT_TRUE(contains(status.message, "far")) << status.message;
  if (world.hardware_paged()) {
    EXPECT_EQ(status.path, path);
    EXPECT_EQ(status.offset.value, kGranule + 3);
  }
  EXPECT_EQ(plain_size(path), kGranule);
  EXPECT_EQ(world.seen_by_device(m), pattern(kGranule));
}

struct StoreWild {
  APRIME_DEVICE void operator()(LeasedSpan<Byte>) const {
    volatile std::uintptr_t nowhere = 0x1000;
    *reinterpret_cast<volatile Byte*>(nowhere) = 1;
  }
};

TEST_P(Watched, emulated_a_wild_pointer_stops_the_kernel_and_not_the_process) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(kGranule));
  const DeviceFaultStatus status =
      world.runtime()
          .launch({{1}, {1}}, {.device = 0, .name = "wild"}, StoreWild{}, aprime::read_write(m))
          .status();
  EXPECT_EQ(status.code, Errc::kernel_failed);
  EXPECT_TRUE(status.was_write);
  EXPECT_TRUE(contains(status.message, "wild")) << status.message;
  world.store_on_device(m, all_of(m), 1);
  EXPECT_EQ(read_bytes(m), constant(kGranule, 1));
}

TEST_P(Launch, closing_a_mapping_waits_for_no_launch_that_comes_later) {
  World world(GetParam());
  const Mapping busy = world.map_new(Bytes(1 << 20));  // for some milliseconds each time
  Mapping closed = world.map_new(Bytes(kGranule));
  std::atomic<bool> is_closed{false}, is_busy{false};
  std::thread other([&] {
    const auto start = std::chrono::steady_clock::now();
    const auto launch = [&] {
      return world.runtime().launch({{1}, {1}}, IncrementBytes{}, aprime::read_write(busy));
    };
    std::deque<Completion> launches;
    while (!is_closed.load()) {
      while (launches.size() < 8) launches.push_back(launch());
      launches.front().wait();
      launches.pop_front();
      is_busy.store(true);
      ASSERT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << "it waits for all";
    }
  });
  while (!is_busy.load()) std::this_thread::yield();
  closed.close();
  is_closed.store(true);
  other.join();
}

TEST_P(Launch, threads_may_launch_at_once) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(16 * kGranule));
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t)
    threads.emplace_back([&world, &m, t] {
      for (int i = 0; i < 10; ++i) world.increment_on_device(m, granules(t * 4, 4));
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(read_bytes(m), constant(16 * kGranule, 10));
}

}  // namespace
}  // namespace aprime::contract
