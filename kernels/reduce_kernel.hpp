#pragma once

#include <cstddef>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"

namespace aprime::kernels {

/// Adds the sum of each block's part of `elements` to that block's own entry of `sums`, so that the result
/// does not depend on the order in which blocks run. Sums are double from the first addition: a sum of floats
/// may overflow on the way to a total that does not. Blocks must have `kThreads` threads.
struct ReduceKernel {
  static constexpr unsigned kThreads = 256;
  static constexpr unsigned kWarps = kThreads / 32;

  /// Elements of each block's part.
  std::size_t part;

  APRIME_DEVICE void operator()(LeasedSpan<const float> elements, LeasedSpan<double> sums) const {
    __shared__ double warp_sums[kWarps];
    const std::size_t first = blockIdx.x * part;
    const std::size_t end = first + part < elements.size() ? first + part : elements.size();
    double sum = 0;
    for (std::size_t i = first + threadIdx.x; i < end; i += blockDim.x) sum += elements[i];

    sum = warp_sum(sum, 32);
    if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
      sum = warp_sum(threadIdx.x < kWarps ? warp_sums[threadIdx.x] : 0.0, kWarps);
      if (threadIdx.x == 0) sums[blockIdx.x] += sum;
    }
  }

 private:
  /// Lane 0 gets the sum of the first `lanes` lanes, a power of two. All 32 lanes must call it.
  APRIME_DEVICE static double warp_sum(double sum, unsigned lanes) {
    for (unsigned step = lanes / 2; step > 0; step /= 2) sum += __shfl_down_sync(0xffff'ffffU, sum, step);
    return sum;
  }
};

}  // namespace aprime::kernels
