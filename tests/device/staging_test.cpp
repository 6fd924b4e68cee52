#include "host/device/staging.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "tests/test_scale.hpp"

namespace aprime::device {
namespace {

TEST(StagingPool, BuffersAndTheirHalvesAreApart) {
  StagingPool pool(StagingPool::kBuffersMax);
  std::vector<StagingPool::Lease> leases;
  std::set<std::byte*> halves;
  for (unsigned i = 0; i < StagingPool::kBuffersMax; ++i) {
    leases.push_back(pool.lease());
    for (const std::span<std::byte> half : {leases.back().first_half(), leases.back().second_half()}) {
      EXPECT_EQ(half.size(), StagingPool::kHalfBytes);
      halves.insert(half.data());
    }
  }
  ASSERT_EQ(halves.size(), 2 * StagingPool::kBuffersMax);
  for (auto it = halves.begin(); std::next(it) != halves.end(); ++it) {
    EXPECT_GE(static_cast<std::size_t>(*std::next(it) - *it), StagingPool::kHalfBytes);
  }
}

TEST(StagingPool, TheLowestFreeBufferIsUsedAgain) {
  StagingPool pool(4);
  auto first = std::make_unique<StagingPool::Lease>(pool.lease());
  std::byte* const at = first->first_half().data();
  const StagingPool::Lease second = pool.lease();
  EXPECT_NE(second.first_half().data(), at);
  first.reset();
  EXPECT_EQ(pool.lease().first_half().data(), at);
}

TEST(StagingPool, WhoFindsNoBufferWaitsForOne) {
  StagingPool pool(2);
  std::atomic<int> clashes{0};
  const auto work = [&](int seed) {
    for (int i = 0; i < test::scaled(3000); ++i) {
      const StagingPool::Lease lease = pool.lease();
      const std::span<std::byte> bytes = lease.first_half().first(256);
      const auto mark = static_cast<std::byte>(seed);
      std::fill(bytes.begin(), bytes.end(), mark);
      std::this_thread::yield();
      clashes += std::any_of(bytes.begin(), bytes.end(), [mark](std::byte b) { return b != mark; });
    }
  };
  std::vector<std::thread> threads;
  for (int t = 1; t <= 6; ++t) threads.emplace_back(work, t);
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(clashes, 0);
}

}  // namespace
}  // namespace aprime::device
