// Granules that threads of a running kernel pin all the time, several at once.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "aprime/device_span.hpp"
#include "tests/contract/contract.hpp"

namespace aprime::engine {
namespace {

using namespace contract;

using Pins = Contract;
APRIME_CONTRACT_SUITE(Pins);

constexpr std::size_t kWords = kGranule / sizeof(unsigned);

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

}  // namespace
}  // namespace aprime::engine
