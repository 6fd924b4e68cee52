// A file that its plain path cuts and adds to while a kernel runs that takes faults in it.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <optional>

#include "aprime/device_span.hpp"
#include "tests/contract/contract.hpp"

namespace aprime::engine {
namespace {

using namespace contract;

/// The parameter says whether devices learn of the cut before the file grows again.
class Cut : public Contract {
 protected:
  static constexpr std::size_t kOld = 4 * kGranule;
  static constexpr std::size_t kNew = kGranule + 400;
  static constexpr unsigned char kAdded = 2;

  /// Cuts the file, and adds to it what it lacks then.
  static void cut_and_add(const std::string& path, const Mapping& m, bool is_noticed) {
    plain_truncate(path, kNew);
    if (is_noticed) m.sync();
    plain_write(path, kNew, constant(kOld - kNew, kAdded));
  }
};
APRIME_CONTRACT_SUITE(Cut);

struct WaitAndLoad {
  std::atomic<bool>* is_there;
  const std::atomic<bool>* goes_on;
  std::atomic<unsigned>* seen;

  void operator()(device_span<const unsigned> words, std::size_t at) const {
    static_cast<void>(words.load(0));
    *is_there = true;
    while (!goes_on->load()) __nanosleep(100000);
    *seen = words.load(at);
  }
};

TEST_P(Cut, a_running_kernel_faults_on_what_was_added) {
  for (const bool is_noticed : {false, true})
    for (const std::size_t at : {kNew, 3 * kGranule}) {
      SCOPED_TRACE(testing::Message() << "at " << at << (is_noticed ? ", noticed" : ""));
      World world(GetParam());
      const std::string path = world.file(constant(kOld, 1));
      const Mapping m = world.map(path);
      std::atomic<bool> is_there{false};
      std::atomic<bool> goes_on{false};
      std::atomic<unsigned> seen{0};
      const Completion launch = world.runtime().launch({{1}, {1}}, WaitAndLoad{&is_there, &goes_on, &seen},
                                                       demand_read(m), at / sizeof(unsigned));
      ASSERT_TRUE(eventually([&] { return is_there.load(); }));
      cut_and_add(path, m, is_noticed);
      goes_on = true;
      EXPECT_TRUE(launch.status().is_ok()) << launch.status().message;
      EXPECT_EQ(seen.load(), 0x02020202u);
    }
}

struct WaitAndStore {
  std::atomic<bool>* is_there;
  const std::atomic<bool>* goes_on;

  void operator()(device_span<unsigned> words, std::size_t at) const {
    static_cast<void>(words.load(0));
    *is_there = true;
    while (!goes_on->load()) __nanosleep(100000);
    words.store(at, 0x07070707u);
  }
};

TEST_P(Cut, what_a_running_kernel_stores_to_what_was_added_is_kept) {
  for (const bool is_noticed : {false, true})
    for (const std::size_t at : {kNew + 400, 3 * kGranule}) {
      SCOPED_TRACE(testing::Message() << "at " << at << (is_noticed ? ", noticed" : ""));
      World world(GetParam());
      const std::string path = world.file(constant(kOld, 1));
      const Mapping m = world.map(path);
      std::atomic<bool> is_there{false};
      std::atomic<bool> goes_on{false};
      const Completion launch = world.runtime().launch({{1}, {1}}, WaitAndStore{&is_there, &goes_on},
                                                       demand_read_write(m), at / sizeof(unsigned));
      ASSERT_TRUE(eventually([&] { return is_there.load(); }));
      cut_and_add(path, m, is_noticed);
      goes_on = true;
      EXPECT_TRUE(launch.status().is_ok()) << launch.status().message;
      m.sync();
      EXPECT_EQ(plain_read(path, at, 4), constant(4, 7));
      EXPECT_EQ(read_bytes(m, range(at, 4)), constant(4, 7));
      EXPECT_EQ(read_bytes(m, range(at + 4, 4)), constant(4, kAdded));
    }
}

struct AddTo {
  void operator()(device_span<unsigned> words, std::size_t at) const { words.atomic_add(at, 1); }
};

/// A fault waits for the lease, and has nothing in its granule yet: who has the lease may use the others.
TEST_P(Cut, who_has_a_host_lease_behind_the_cut_may_use_what_was_added) {
  World world(GetParam());
  const std::string path = world.file(constant(kOld, 1));
  const Mapping m = world.map(path);
  std::optional<HostLease> lease = m.host_lease(granules(3), Right::read_write);
  const Completion launch =
      world.runtime().launch({{1}, {1}}, AddTo{}, demand_read_write(m), 3 * kGranule / sizeof(unsigned));
  EXPECT_TRUE(eventually([&] { return world.runtime().stats().faults.device_write > 0; }));
  cut_and_add(path, m, true);
  std::future<Bytes> read = std::async(std::launch::async, [&] { return read_bytes(m, granules(2)); });
  EXPECT_EQ(read.wait_for(std::chrono::seconds{5}), std::future_status::ready);
  std::future<void> map = std::async(std::launch::async, [&] { static_cast<void>(world.map(path)); });
  EXPECT_EQ(map.wait_for(std::chrono::seconds{5}), std::future_status::ready);
  lease.reset();
  EXPECT_EQ(read.get(), constant(kGranule, kAdded));
  map.get();
  EXPECT_TRUE(launch.status().is_ok()) << launch.status().message;
  EXPECT_EQ(read_bytes(m, range(3 * kGranule, 4)),
            (Bytes{std::byte{3}, std::byte{2}, std::byte{2}, std::byte{2}}));
}

}  // namespace
}  // namespace aprime::engine
