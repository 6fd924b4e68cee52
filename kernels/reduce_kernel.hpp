#pragma once

#include <cstddef>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"
#include "kernels/block_sums.hpp"

namespace aprime::kernels {

/// Adds the sum of each block's part of `elements` to that block's own entry of `sums`, so that the result
/// does not depend on the order in which blocks run. Sums are double from the first addition: a sum of floats
/// may overflow on the way to a total that does not. Blocks must have `kThreads` threads.
struct ReduceKernel {
  static constexpr unsigned kThreads = 256;

  /// Elements of each block's part.
  std::size_t part;

  APRIME_DEVICE void operator()(LeasedSpan<const float> elements, LeasedSpan<double> sums) const {
    const std::size_t first = blockIdx.x * part;
    const std::size_t end = first + part < elements.size() ? first + part : elements.size();
    double sum = 0;
    for (std::size_t i = first + threadIdx.x; i < end; i += blockDim.x) sum += elements[i];
    sum = block_sum<kThreads>(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] += sum;
  }
};

}  // namespace aprime::kernels
