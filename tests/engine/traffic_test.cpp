// How moves to and fro are noticed, at any time since the machine was started.
#include "host/engine/traffic.hpp"

#include <gtest/gtest.h>

namespace aprime::engine {
namespace {

constexpr GranuleIndex kGranule{7};
/// After so many quick moves a granule is held.
constexpr int kQuickMoves = 15;

bool is_held_after(Traffic& traffic, std::uint64_t start_us, std::uint64_t apart_us) {
  for (int i = 0; i < kQuickMoves; ++i)
    EXPECT_EQ(traffic.on_move(kGranule, start_us + static_cast<std::uint64_t>(i) * apart_us).count(), 0) << i;
  return traffic.on_move(kGranule, start_us + kQuickMoves * apart_us).count() > 0;
}

TEST(TrafficTest, quick_moves_are_told_from_slow_ones_however_long_the_machine_is_up) {
  constexpr std::uint64_t kWrap = std::uint64_t{1} << 40;  // microseconds: 12 days
  for (const std::uint64_t start : {std::uint64_t{1000000}, kWrap - 5000, kWrap + 5000, 300 * kWrap + 7}) {
    Traffic quick;
    EXPECT_TRUE(is_held_after(quick, start, 900)) << start;
    Traffic slow;
    EXPECT_FALSE(is_held_after(slow, start, 1000)) << start;
  }
}

}  // namespace
}  // namespace aprime::engine
