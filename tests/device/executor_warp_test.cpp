#include "aprime/kernel.hpp"
#include "host/device/executor.hpp"
#include "tests/device/launch_kernel.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <random>
#include <string>

// The warp primitives against scalar models of what CUDA and PTX specify.

namespace aprime::device {
namespace {

constexpr unsigned all_lanes = 0xffff'ffffU;

Grid grid_of(unsigned blocks, unsigned threads) { return Grid{Dim3{blocks, 1, 1}, Dim3{threads, 1, 1}, 0}; }

TEST(ExecutorWarp, LanesThatEndedAreLeftOutOfAWarpPrimitive) {
  Executor executor(1);
  unsigned votes_before = 0;
  unsigned votes_after = 0;
  const auto result = launch(executor, grid_of(1, 32), [&] {
    if (threadIdx.x < 3) return;
    const unsigned before = __ballot_sync(all_lanes, 1);
    if (threadIdx.x == 31) votes_before = before;
    if (threadIdx.x > 20) return;
    const unsigned after = __ballot_sync(all_lanes, 1);
    if (threadIdx.x == 5) votes_after = after;
  });
  EXPECT_TRUE(result.completed()) << result.message;
  EXPECT_EQ(votes_before, 0xffff'fff8U);
  EXPECT_EQ(votes_after, 0x001f'fff8U);
}

struct ShuffleCase {
  std::uint64_t value[warp_lanes];
  unsigned operand;
  int width;
};

/// The lane a shuffle reads, from the pseudo-code of `shfl.sync` in the PTX manual.
unsigned ptx_source(char mode, unsigned lane, unsigned b, unsigned width) {
  const unsigned segment_mask = warp_lanes - width;
  const unsigned clamp = mode == 'u' ? 0 : 0x1f;
  const unsigned lane_max = (lane & segment_mask) | (clamp & ~segment_mask);
  const unsigned lane_min = lane & segment_mask;
  b &= 0x1f;
  const int to = static_cast<int>(lane);
  int from = 0;
  bool in_range = false;
  switch (mode) {
    case 'u':
      from = to - static_cast<int>(b);
      in_range = from >= static_cast<int>(lane_max);
      break;
    case 'd':
      from = to + static_cast<int>(b);
      in_range = from <= static_cast<int>(lane_max);
      break;
    case 'x':
      from = static_cast<int>(lane ^ b);
      in_range = from <= static_cast<int>(lane_max);
      break;
    default:
      from = static_cast<int>(lane_min | (b & ~segment_mask));
      in_range = from <= static_cast<int>(lane_max);
  }
  return in_range ? static_cast<unsigned>(from) : lane;
}

TEST(ExecutorWarp, ShufflesReadTheLaneThatPtxSpecifies) {
  Executor executor(1);
  constexpr unsigned seed = 20'161'212;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 60; ++round) {
    ShuffleCase c{};
    for (auto& value : c.value) value = random();
    c.width = 1 << (random() % 6);
    c.operand = static_cast<unsigned>(random() % 32);
    const auto width = static_cast<unsigned>(c.width);
    const auto result = launch(executor, grid_of(1, 32), [&] {
      const unsigned lane = threadIdx.x;
      const std::uint64_t own = c.value[lane];
      const auto own_float = static_cast<float>(own % 1000);
      const auto operand = static_cast<int>(c.operand);
      EXPECT_EQ(__shfl_sync(all_lanes, own, operand, c.width),
                c.value[ptx_source('i', lane, c.operand, width)]);
      EXPECT_EQ(__shfl_up_sync(all_lanes, own, c.operand, c.width),
                c.value[ptx_source('u', lane, c.operand, width)]);
      EXPECT_EQ(__shfl_down_sync(all_lanes, own, c.operand, c.width),
                c.value[ptx_source('d', lane, c.operand, width)]);
      EXPECT_EQ(__shfl_xor_sync(all_lanes, own_float, operand, c.width),
                static_cast<float>(c.value[ptx_source('x', lane, c.operand, width)] % 1000));
    });
    ASSERT_TRUE(result.completed()) << result.message;
  }
}

TEST(ExecutorWarp, VotesAndMatchesAgreeWithAScalarModel) {
  Executor executor(1);
  constexpr unsigned seed = 7;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 60; ++round) {
    const unsigned members = static_cast<unsigned>(random()) | 1U;
    const unsigned bits = round % 4 == 0 ? all_lanes : static_cast<unsigned>(random());
    std::array<int, warp_lanes> keys{};
    for (int& key : keys) key = static_cast<int>(random() % 5) - 2;
    const auto result = launch(executor, grid_of(1, 32), [&] {
      const unsigned lane = threadIdx.x;
      // Two disjoint groups at once: each lane names the group it is in.
      const unsigned group = (members >> lane & 1U) != 0 ? members : ~members;
      const int vote = static_cast<int>(bits >> lane & 1U);
      unsigned equal = 0;
      for (unsigned other = 0; other < warp_lanes; ++other) {
        if ((group >> other & 1U) != 0 && keys[other] == keys[lane]) equal |= 1U << other;
      }
      EXPECT_EQ(__ballot_sync(group, vote), bits & group);
      EXPECT_EQ(__any_sync(group, vote), (bits & group) != 0 ? 1 : 0);
      EXPECT_EQ(__all_sync(group, vote), (bits & group) == group ? 1 : 0);
      EXPECT_EQ(__match_any_sync(group, keys[lane]), equal);
    });
    ASSERT_TRUE(result.completed()) << result.message;
  }
}

TEST(ExecutorWarp, AWarpBarrierOrdersSharedMemoryAmongItsLanes) {
  Executor executor(2);
  const auto result = launch(executor, grid_of(3, 96), [&] {
    __shared__ unsigned cells[96];
    const unsigned neighbour = (threadIdx.x & ~31U) | ((threadIdx.x + 1) & 31U);
    for (unsigned round = 0; round < 8; ++round) {
      cells[threadIdx.x] = threadIdx.x + round;
      __syncwarp();
      EXPECT_EQ(cells[neighbour], neighbour + round);
      __syncwarp();
    }
  });
  EXPECT_TRUE(result.completed()) << result.message;
}

/// One place in the program whatever the compiler does: inlined, it may get a copy for each path to it, and
/// lanes in different copies are not together, on a GPU neither.
[[gnu::noipa]] unsigned active_mask_at_one_place() { return __activemask(); }

TEST(ExecutorWarp, ActiveMaskNamesTheLanesOnTheSamePath) {
  Executor executor(2);
  std::array<unsigned, 64> odd_path{};
  std::array<unsigned, 64> rejoined{};
  const auto result = launch(executor, grid_of(1, 64), [&] {
    const unsigned lane = threadIdx.x;
    if (lane % 32 == 9) return;
    if (lane % 2 == 1) {
      odd_path[lane] = __activemask();
    } else {
      __syncwarp(0x5555'5555U);
    }
    __syncwarp();
    rejoined[lane] = active_mask_at_one_place();
  });
  ASSERT_TRUE(result.completed()) << result.message;
  for (unsigned i = 0; i < 64; ++i) {
    if (i % 32 == 9) continue;
    EXPECT_EQ(rejoined[i], 0xffff'fdffU);
    if (i % 2 == 1) {
      EXPECT_EQ(odd_path[i], 0xaaaa'a8aaU);
    }
  }
}

TEST(ExecutorWarp, ASleepingThreadLetsTheOthersRun) {
  Executor executor(1);
  unsigned flag = 0;
  std::array<unsigned, 64> mask{};
  // The first thread of the block waits for the last, and a lane that sleeps is not waited for by
  // __activemask.
  const auto result = launch(executor, grid_of(1, 64), [&] {
    if (threadIdx.x == 0) {
      while (atomicAdd(&flag, 0) < 63) __nanosleep(100);
      return;
    }
    mask[threadIdx.x] = __activemask();
    atomicAdd(&flag, 1);
  });
  ASSERT_TRUE(result.completed()) << result.message;
  EXPECT_EQ(mask[1], 0xffff'fffeU);
  EXPECT_EQ(mask[40], all_lanes);
}

}  // namespace
}  // namespace aprime::device
