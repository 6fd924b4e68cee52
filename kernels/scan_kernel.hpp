#pragma once

#include <cstddef>
#include <cstdint>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"
#include "kernels/block_sums.hpp"

namespace aprime::kernels {

// A prefix sum in three launches, which loads every element twice and stores it once ("reduce then scan";
// Dotsenko et al., "Fast scan algorithms on graphics processors", ICS 2008): sums of the blocks' parts, the
// prefix sums of those, and the elements. Unsigned sums wrap around.

/// Most blocks of a launch, so that one block can add up what each of them found.
inline constexpr unsigned kScanBlocksMax = 1024;

/// What the launches share: the sum of each block's part, and then the sum of everything before it.
struct ScanSums {
  std::uint32_t parts[kScanBlocksMax];
  /// Of all elements so far, launches before this one included.
  std::uint32_t total;
};

/// The first launch. Blocks of `kThreads` threads.
struct ScanPartsKernel {
  static constexpr unsigned kThreads = 256;

  /// Elements of each block's part.
  std::size_t part;

  APRIME_DEVICE void operator()(LeasedSpan<const std::uint32_t> elements, LeasedSpan<ScanSums> sums) const {
    const std::size_t first = blockIdx.x * part;
    const std::size_t end = first + part < elements.size() ? first + part : elements.size();
    std::uint32_t sum = 0;
    for (std::size_t i = first + threadIdx.x; i < end; i += blockDim.x) sum += elements[i];
    sum = block_sum<kThreads>(sum);
    if (threadIdx.x == 0) sums[0].parts[blockIdx.x] = sum;
  }
};

/// The second launch: one block of `kThreads` threads.
struct ScanSumsKernel {
  static constexpr unsigned kThreads = 256;
  static constexpr unsigned kRun = kScanBlocksMax / kThreads;

  /// Parts that the first launch had.
  unsigned parts;

  APRIME_DEVICE void operator()(LeasedSpan<ScanSums> sums) const {
    const std::uint32_t before = sums[0].total;
    const unsigned first = threadIdx.x * kRun;
    const unsigned end = first + kRun < parts ? first + kRun : parts;
    std::uint32_t own = 0;
    for (unsigned i = first; i < end; ++i) own += sums[0].parts[i];
    std::uint32_t total = 0;
    std::uint32_t earlier = before + block_prefix_sum<kThreads>(own, total) - own;
    for (unsigned i = first; i < end; ++i) {
      const std::uint32_t part = sums[0].parts[i];
      sums[0].parts[i] = earlier;
      earlier += part;
    }
    // Nobody reads it any more: the prefix sum has barriers.
    if (threadIdx.x == 0) sums[0].total = before + total;
  }
};

/// The third launch, of the same shape as the first. A tile goes through shared memory, because device memory
/// wants neighbouring threads on neighbouring elements, and the sum wants a run of elements in each thread.
struct ScanKernel {
  static constexpr unsigned kThreads = ScanPartsKernel::kThreads;
  static constexpr unsigned kRun = 16;
  static constexpr unsigned kTile = kThreads * kRun;

  std::size_t part;

  APRIME_DEVICE void operator()(LeasedSpan<std::uint32_t> elements, LeasedSpan<const ScanSums> sums) const {
    __shared__ std::uint32_t tile[kTile + kTile / 32];
    const std::size_t first = blockIdx.x * part;
    const std::size_t end = first + part < elements.size() ? first + part : elements.size();
    std::uint32_t before = sums[0].parts[blockIdx.x];
    for (std::size_t at = first; at < end; at += kTile) {
      for (unsigned i = threadIdx.x; i < kTile; i += kThreads) {
        tile[padded(i)] = at + i < end ? elements[at + i] : 0;
      }
      __syncthreads();
      const unsigned run = threadIdx.x * kRun;
      std::uint32_t sum = 0;
      for (unsigned i = 0; i < kRun; ++i) {
        sum += tile[padded(run + i)];
        tile[padded(run + i)] = sum;
      }
      std::uint32_t total = 0;
      const std::uint32_t earlier = before + block_prefix_sum<kThreads>(sum, total) - sum;
      for (unsigned i = 0; i < kRun; ++i) tile[padded(run + i)] += earlier;
      __syncthreads();
      for (unsigned i = threadIdx.x; i < kTile && at + i < end; i += kThreads)
        elements[at + i] = tile[padded(i)];
      // The next tile's elements overwrite those that other threads still store.
      __syncthreads();
      before += total;
    }
  }

 private:
  /// Position in shared memory: one word of padding in 32 puts the runs of a warp's threads into different
  /// banks.
  APRIME_DEVICE static constexpr unsigned padded(unsigned i) { return i + i / 32; }
};

}  // namespace aprime::kernels
