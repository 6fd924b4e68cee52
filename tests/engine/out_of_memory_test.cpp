// Memory that runs out in the library's own threads, where nobody could catch what is thrown.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <new>
#include <thread>
#include <utility>

#include "aprime/device_span.hpp"
#include "tests/contract/contract.hpp"
#include "tests/contract/kernels.hpp"

namespace {

/// So many allocations of this thread succeed, and then so many fail, from now on.
thread_local int successes_to_come = 0;
thread_local int failures_to_come = 0;
thread_local bool is_spared = false;
/// Those of all threads fail but of those that are spared.
std::atomic<bool> all_fail{false};
std::atomic<int> failed{0};

bool must_fail() noexcept {
  if (failures_to_come > 0 && successes_to_come > 0) return --successes_to_come, false;
  if (failures_to_come > 0)
    --failures_to_come;
  else if (is_spared || !all_fail.load())
    return false;
  failed.fetch_add(1);
  return true;
}

}  // namespace

// Not inlined, where the compiler would see new, then free, and warn.
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (must_fail()) throw std::bad_alloc();
  if (void* const p = std::malloc(size == 0 ? 1 : size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace aprime::engine {
namespace {

using namespace contract;

using OutOfMemory = Contract;
APRIME_CONTRACT_SUITE(OutOfMemory);

struct Mistake final : std::exception {
  const char* what() const noexcept override { return "too many words for a string that allocates nothing"; }
};
struct FailingTask {
  void operator()(int failures) const {
    failures_to_come = failures;
    throw Mistake();
  }
};

TEST_P(OutOfMemory, launch_that_cannot_be_told_of_ends_all_the_same) {
  World world(GetParam());
  const Error error = error_of([&] { world.runtime().launch_task({}, FailingTask{}, 1).wait(); });
  EXPECT_EQ(error.code(), Errc::resources);
  EXPECT_NE(std::string(error.what()), "");
  EXPECT_EQ(code_of([&] { world.runtime().launch_task({}, FailingTask{}, 0).wait(); }), Errc::kernel_failed);
}

TEST_P(OutOfMemory, a_mapping_ends) {
  World world(GetParam());
  const std::string path = world.file(pattern(2 * kGranule));
  {
    const Mapping m = world.map(path);
    m.host<std::byte>()[1] = std::byte{0x52};
    failed = 0;
    failures_to_come = 1 << 20;
  }
  failures_to_come = 0;
  EXPECT_EQ(plain_read(path), with(pattern(2 * kGranule), 1, 1, 0x52));
}

TEST_P(OutOfMemory, a_pointer_that_cannot_be_had_is_told_of) {
  World world(GetParam());
  // Each allocation on the way fails once.
  for (int before = 0, has_failed = 1; has_failed != 0; ++before) {
    ASSERT_LT(before, 100);
    const Mapping m = world.map_new(pattern(2 * kGranule));
    Errc code = Errc::ok;
    successes_to_come = before;
    failures_to_come = 1;
    try {
      m.host<std::byte>();
    } catch (const Error& e) {
      code = e.code();
    } catch (const std::bad_alloc&) {
      code = Errc::resources;
    }
    has_failed = 1 - std::exchange(failures_to_come, 0);
    EXPECT_TRUE(code == Errc::ok || code == Errc::resources);
    EXPECT_EQ(seen_by_pointer(m, all_of(m)), pattern(2 * kGranule));
  }
}

TEST_P(OutOfMemory, a_runtime_ends_and_loses_nothing) {
  World world(GetParam());
  const std::string path = world.file(pattern(40 * kGranule));
  const Mapping m = world.map(path);
  Bytes expected = pattern(40 * kGranule);
  for (std::uint64_t g = 0; g < 40; g += 2) {
    world.store_on_device(m, granules(g), 0x53);
    expected = with(std::move(expected), g * kGranule, kGranule, 0x53);
  }
  is_spared = false;
  all_fail = true;
  world.end_runtime();
  all_fail = false;
  EXPECT_EQ(plain_read(path), expected);
}

struct LoadAndUseUpMemory {
  void operator()(device_span<const unsigned char> bytes) const {
    static_cast<void>(bytes.load(0));
    all_fail = true;
  }
};

TEST_P(OutOfMemory, a_kernel_that_has_faulted_ends) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(4 * kGranule));
  is_spared = true;
  const Completion launch = world.runtime().launch({{1}, {1}}, LoadAndUseUpMemory{}, demand_read(m));
  const bool has_ended = eventually([&] { return launch.done(); });
  all_fail = false;
  EXPECT_TRUE(has_ended);
  EXPECT_EQ(world.seen_by_device(m), pattern(4 * kGranule));
}

TEST_P(OutOfMemory, flusher_needs_none) {
  // So long that nothing has gone home before memory runs out.
  World world(GetParam(), {.dirty_age_max = std::chrono::seconds{3}});
  const std::string path = world.sparse_file(4 * kGranule);
  const Mapping m = world.map(path);
  is_spared = true;
  world.store_on_device(m, all_of(m), 0x51);
  all_fail = true;
  const bool is_home = eventually([&] { return plain_read(path) == constant(4 * kGranule, 0x51); });
  all_fail = false;
  EXPECT_TRUE(is_home);
}

}  // namespace
}  // namespace aprime::engine
