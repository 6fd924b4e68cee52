#include "host/device/executor.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "aprime/kernel.hpp"
#include "host/os/syscalls.hpp"
#include "tests/device/launch_kernel.hpp"

namespace aprime::device {
namespace {

constexpr unsigned all_lanes = 0xffff'ffffU;

unsigned linear_thread() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
unsigned linear_block() { return blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z); }

Grid grid_of(unsigned blocks, unsigned threads) { return Grid{Dim3{blocks, 1, 1}, Dim3{threads, 1, 1}, 0}; }

TEST(Grid, CoverGivesEveryElementAThreadAndNoBlockTooMany) {
  for (const std::uint64_t elements : {1ULL, 255ULL, 256ULL, 257ULL, 1'000'000ULL}) {
    const Grid grid = Grid::cover(elements, 256);
    EXPECT_GE(grid.blocks.count() * 256, elements);
    EXPECT_LT((grid.blocks.count() - 1) * 256, elements);
  }
  EXPECT_EQ(Grid::cover(0, 256).problem(), nullptr);
  EXPECT_EQ(Grid::cover(0xffff'ffff'ffff'ffffULL / 0x1'0000'0000ULL, 32).blocks.count(), 0x800'0000U);
  EXPECT_THROW(static_cast<void>(Grid::cover(1, 0)), std::invalid_argument);
  EXPECT_THROW(static_cast<void>(Grid::cover(1, 1025)), std::invalid_argument);
  EXPECT_THROW(static_cast<void>(Grid::cover(0xffff'ffff'ffff'ffffULL, 1024)), std::invalid_argument);
}

TEST(Grid, IllegalShapesAreRefusedBeforeAnythingRuns) {
  Executor executor(1);
  std::atomic<unsigned> ran{0};
  const auto kernel = [&] { ++ran; };
  for (const Grid& grid : {Grid{Dim3{0, 1, 1}, Dim3{1, 1, 1}, 0}, Grid{Dim3{1, 1, 1}, Dim3{1, 0, 1}, 0},
                           Grid{Dim3{1, 1, 1}, Dim3{1024, 2, 1}, 0}, Grid{Dim3{1, 1, 1}, Dim3{1, 1, 65}, 0},
                           Grid{Dim3{1, 65'536, 1}, Dim3{1, 1, 1}, 0},
                           Grid{Dim3{1, 1, 1}, Dim3{1, 1, 1}, shared_bytes_max + 1}}) {
    EXPECT_THROW(static_cast<void>(launch(executor, grid, kernel)), std::invalid_argument);
  }
  EXPECT_EQ(ran, 0U);
}

TEST(Executor, EveryThreadOfEveryBlockRunsExactlyOnceUnderItsOwnIndex) {
  Executor executor(2);
  const Grid grid{Dim3{3, 2, 4}, Dim3{5, 7, 3}, 0};
  for (const bool synchronise : {false, true}) {
    std::vector<std::atomic<unsigned>> runs(grid.blocks.count() * grid.threads.count());
    const auto result = launch(executor, grid, [&] {
      EXPECT_EQ(blockDim, grid.threads);
      EXPECT_EQ(gridDim, grid.blocks);
      const unsigned before = linear_thread();
      if (synchronise) __syncthreads();
      EXPECT_EQ(linear_thread(), before);
      ++runs[linear_block() * grid.threads.count() + before];
    });
    EXPECT_TRUE(result.completed()) << result.message;
    for (const auto& count : runs) EXPECT_EQ(count, 1U);
  }
}

TEST(Executor, AGridCoveringNoElementsTouchesNothing) {
  Executor executor(2);
  std::vector<int> data;
  const auto result = launch(executor, Grid::cover(data.size(), 64), [&] {
    const std::size_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < data.size()) data[i] = 1;
  });
  EXPECT_TRUE(result.completed()) << result.message;
}

TEST(Executor, ABarrierOrdersSharedMemoryInABlockReduction) {
  Executor executor(2);
  constexpr unsigned threads = 256;
  constexpr unsigned blocks = 9;
  std::vector<std::uint64_t> input(threads * blocks);
  std::iota(input.begin(), input.end(), 1U);
  std::uint64_t sum = 0;
  std::vector<unsigned long long> partial(blocks);
  const auto result = launch(executor, grid_of(blocks, threads), [&] {
    __shared__ std::uint64_t cells[threads];
    cells[threadIdx.x] = input[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    for (unsigned stride = threads / 2; stride > 0; stride /= 2) {
      if (threadIdx.x < stride) cells[threadIdx.x] += cells[threadIdx.x + stride];
      __syncthreads();
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = cells[0];
  });
  ASSERT_TRUE(result.completed()) << result.message;
  for (const auto part : partial) sum += part;
  EXPECT_EQ(sum, std::accumulate(input.begin(), input.end(), std::uint64_t{0}));
}

TEST(Executor, ABarrierOrdersSharedMemoryInATiledTranspose) {
  Executor executor(2);
  constexpr unsigned tile = 16;
  constexpr unsigned side = 48;
  std::vector<unsigned> from(side * side);
  std::iota(from.begin(), from.end(), 0U);
  std::vector<unsigned> to(side * side);
  const Grid grid{Dim3{side / tile, side / tile, 1}, Dim3{tile, tile, 1}, 0};
  const auto result = launch(executor, grid, [&] {
    __shared__ unsigned cells[tile][tile + 1];
    cells[threadIdx.y][threadIdx.x] =
        from[(blockIdx.y * tile + threadIdx.y) * side + blockIdx.x * tile + threadIdx.x];
    __syncthreads();
    to[(blockIdx.x * tile + threadIdx.y) * side + blockIdx.y * tile + threadIdx.x] =
        cells[threadIdx.x][threadIdx.y];
  });
  ASSERT_TRUE(result.completed()) << result.message;
  for (unsigned row = 0; row < side; ++row) {
    for (unsigned column = 0; column < side; ++column)
      ASSERT_EQ(to[row * side + column], column * side + row);
  }
}

TEST(Executor, BarriersThatVoteCountTheThreadsThatArrived) {
  Executor executor(2);
  const auto result = launch(executor, grid_of(3, 70), [&] {
    if (threadIdx.x >= 60) return;
    EXPECT_EQ(__syncthreads_count(threadIdx.x % 3 == 0), 20);
    EXPECT_EQ(__syncthreads_and(1), 1);
    EXPECT_EQ(__syncthreads_and(threadIdx.x != 7), 0);
    EXPECT_EQ(__syncthreads_or(threadIdx.x == 7), 1);
    EXPECT_EQ(__syncthreads_or(0), 0);
  });
  EXPECT_TRUE(result.completed()) << result.message;
}

TEST(Executor, ThreadsThatEndedCountAsArrived) {
  Executor executor(2);
  std::atomic<unsigned> passed{0};
  // Those that end come before, between and after those that wait, in the loop and after a wait of their own.
  const auto result = launch(executor, grid_of(4, 128), [&] {
    if (threadIdx.x % 3 == 0) return;
    __syncthreads();
    if (threadIdx.x % 3 == 1) return;
    __syncthreads();
    ++passed;
  });
  EXPECT_TRUE(result.completed()) << result.message;
  EXPECT_EQ(passed, 4U * 42U);
}

TEST(Executor, AtomicsLoseNothingAcrossWorkers) {
  Executor executor(4);
  int added = 0;
  unsigned subtracted = 1'000'000;
  unsigned long long wide = 0;
  float real = 0;
  double wide_real = 0;
  int least = 0;
  int most = 0;
  unsigned ored = 0;
  unsigned anded = all_lanes;
  unsigned xored = 0;
  unsigned by_cas = 0;
  std::atomic<unsigned> exchanged{0};
  unsigned slot = 0;
  constexpr unsigned threads = 200;
  constexpr unsigned blocks = 40;
  const auto result = launch(executor, grid_of(blocks, threads), [&] {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&added, 1);
    atomicSub(&subtracted, 1);
    atomicAdd(&wide, 0x1'0000'0001ULL);
    atomicAdd(&real, 1);
    atomicAdd(&wide_real, 0.5);
    atomicMin(&least, -static_cast<int>(i));
    atomicMax(&most, static_cast<int>(i));
    atomicOr(&ored, 1U << (i % 32));
    atomicAnd(&anded, ~(1U << (i % 31)));
    atomicXor(&xored, i);
    unsigned seen = 0;
    for (;;) {
      const unsigned before = atomicCAS(&by_cas, seen, seen + 2);
      if (before == seen) break;
      seen = before;
    }
    exchanged += atomicExch(&slot, 1);
  });
  ASSERT_TRUE(result.completed()) << result.message;
  constexpr unsigned n = threads * blocks;
  unsigned xor_expected = 0;
  for (unsigned i = 0; i < n; ++i) xor_expected ^= i;
  EXPECT_EQ(added, static_cast<int>(n));
  EXPECT_EQ(subtracted, 1'000'000 - n);
  EXPECT_EQ(wide, 0x1'0000'0001ULL * n);
  EXPECT_EQ(real, static_cast<float>(n));
  EXPECT_EQ(wide_real, n / 2.0);
  EXPECT_EQ(least, 1 - static_cast<int>(n));
  EXPECT_EQ(most, static_cast<int>(n) - 1);
  EXPECT_EQ(ored, all_lanes);
  EXPECT_EQ(anded, 0x8000'0000U);
  EXPECT_EQ(xored, xor_expected);
  EXPECT_EQ(by_cas, 2 * n);
  EXPECT_EQ(exchanged + slot, n);
}

TEST(Executor, BitCountingBuiltInsAgreeWithCuda) {
  EXPECT_EQ(__popc(0xf0f0'0001U), 9);
  EXPECT_EQ(__popcll(~0ULL), 64);
  EXPECT_EQ(__clz(0), 32);
  EXPECT_EQ(__clz(1), 31);
  EXPECT_EQ(__clz(-1), 0);
  EXPECT_EQ(__clzll(1), 63);
  EXPECT_EQ(__ffs(0), 0);
  EXPECT_EQ(__ffs(-2147483647 - 1), 32);
  EXPECT_EQ(__ffsll(1LL << 40), 41);
}

TEST(Executor, DynamicSharedMemoryIsTheBlocksOwn) {
  Executor executor(2);
  for (const unsigned threads : {32U, 256U, 96U}) {
    Grid grid = grid_of(8, threads);
    grid.shared_bytes = threads * sizeof(std::uint64_t);
    const auto result = launch(executor, grid, [&] {
      auto* const cells = dynamic_shared<std::uint64_t>();
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(cells) % 16, 0U);
      cells[threadIdx.x] = blockIdx.x * 10'000 + threadIdx.x;
      __syncthreads();
      const unsigned mirrored = blockDim.x - 1 - threadIdx.x;
      EXPECT_EQ(cells[mirrored], blockIdx.x * 10'000 + mirrored);
    });
    EXPECT_TRUE(result.completed()) << result.message;
  }
  static_cast<void>(launch(executor, grid_of(1, 1), [] { EXPECT_EQ(dynamic_shared<int>(), nullptr); }));
}

TEST(Executor, AKernelThatNeverWaitsNeedsOneFiberPerWorker) {
  Executor executor(1);
  std::atomic<unsigned> ran{0};
  static_cast<void>(launch(executor, grid_of(20, 1024), [&] { ++ran; }));
  const std::uint64_t fibers_at_once = executor.counters().fibers;
  EXPECT_EQ(ran, 20U * 1024U);
  EXPECT_EQ(executor.counters().blocks, 20U);
  EXPECT_EQ(executor.counters().promoted_threads, 0U);
  // Fibers are made a slab of 32 at a time.
  EXPECT_EQ(fibers_at_once, one_fiber_per_thread ? 1024U : 32U);
}

TEST(Executor, AKernelThatOnlySynchronisesWarpsNeedsFibersForOneWarp) {
  Executor executor(1);
  static_cast<void>(launch(executor, grid_of(4, 1024), [] { __syncwarp(); }));
  EXPECT_LE(executor.counters().fibers, one_fiber_per_thread ? 1024U : 64U);
}

TEST(Executor, ManyLaunchesReuseTheirStacks) {
  Executor executor(2);
  const auto kernel = [] { __syncthreads(); };
  static_cast<void>(launch(executor, grid_of(8, 128), kernel));
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(launch(executor, grid_of(8, 128), kernel).completed());
  EXPECT_LE(executor.counters().fibers, 2U * 160U);
}

TEST(Executor, AThreadThatSpinsOnALockGivesWayToItsHolder) {
  Executor executor(2);
  unsigned lock = 0;
  unsigned sum = 0;
  for (const bool by_exchange : {false, true}) {
    const auto result = launch(executor, grid_of(3, 64), [&] {
      for (bool done = false; !done;) {
        if ((by_exchange ? atomicExch(&lock, 1) : atomicCAS(&lock, 0, 1)) != 0) continue;
        const unsigned before = sum;
        __nanosleep(0);
        sum = before + 1;
        __threadfence();
        atomicExch(&lock, 0);
        done = true;
      }
    });
    EXPECT_TRUE(result.completed()) << result.message;
  }
  EXPECT_EQ(sum, 2U * 3U * 64U);
}

TEST(Executor, AThreadHasAsMuchStackAsAGpuGivesItLocalMemory) {
  Executor executor(2);
  std::atomic<unsigned> sum{0};
  const auto result = launch(executor, grid_of(4, 40), [&] {
    constexpr std::size_t bytes = (sanitizer::address || sanitizer::thread ? 480 : 510) << 10;
    volatile char local[bytes];
    for (std::size_t i = 0; i < bytes; i += 512) local[i] = static_cast<char>(threadIdx.x);
    __syncthreads();
    unsigned wrong = 0;
    for (std::size_t i = 0; i < bytes; i += 512) wrong += local[i] != static_cast<char>(threadIdx.x) ? 1 : 0;
    sum += wrong + 1;
  });
  EXPECT_TRUE(result.completed()) << result.message;
  EXPECT_EQ(sum, 4U * 40U);
}

TEST(Executor, WhereGuardsTakeMemoryAreasTheyLeaveMostOfThemToOthers) {
  const auto count_areas = [] {
    std::ifstream maps("/proc/self/maps");
    return std::count(std::istreambuf_iterator<char>(maps), {}, '\n');
  };
  // A fiber costs ThreadSanitizer as much as a thread: it has no room for more than there may be guards.
  const unsigned workers = sanitizer::thread ? 1 : 5;
  const auto before = count_areas();
  os::sys::set_fault_plan({.call = os::sys::Call::madvise, .nth = 1, .times = 0, .error = EINVAL});
  for (int round = 0; round < 2; ++round) {
    Executor executor(workers);
    const auto result = launch(executor, Grid{Dim3{10, 1, 1}, Dim3{1024, 1, 1}, 0}, [] { __syncthreads(); });
    EXPECT_TRUE(result.completed()) << result.message;
    EXPECT_EQ(executor.counters().fibers, workers * 1024);
    EXPECT_GT(count_areas() - before, 1000) << "there are some, also in the second round";
    EXPECT_LT(count_areas() - before, 9000);
  }
  os::sys::clear_fault_plan();
}

TEST(Executor, CallersFromSeveralThreadsTakeTurns) {
  Executor executor(2);
  std::vector<unsigned> sums(4);
  {
    std::vector<std::jthread> callers;
    for (auto& sum : sums) {
      callers.emplace_back([&executor, &sum] {
        for (int i = 0; i < 20; ++i) {
          EXPECT_TRUE(launch(executor, grid_of(3, 64), [&sum] {
                        __syncthreads();
                        atomicAdd(&sum, 1);
                      }).completed());
        }
      });
    }
  }
  for (const unsigned sum : sums) EXPECT_EQ(sum, 20U * 3U * 64U);
}

}  // namespace
}  // namespace aprime::device
