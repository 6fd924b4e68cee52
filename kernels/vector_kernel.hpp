#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"
#include "kernels/block_sums.hpp"

namespace aprime::kernels {

struct FillKernel {
  std::uint32_t value;

  APRIME_DEVICE void operator()(LeasedSpan<std::uint32_t> elements) const {
    const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < elements.size()) elements[i] = value;
  }
};

/// y = x_factor * x + y_factor * y, the second product and the sum with one rounding.
struct CombineKernel {
  float x_factor;
  float y_factor;

  APRIME_DEVICE void operator()(LeasedSpan<float> y, LeasedSpan<const float> x) const {
    const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < y.size()) y[i] = fmaf(y_factor, y[i], x_factor * x[i]);
  }
};

/// Adds the dot product of each block's part of `x` and `y` to that block's own entry of `sums`, in double
/// precision, so that the result does not depend on the order in which blocks run.
struct DotKernel {
  static constexpr unsigned kThreads = 256;

  /// Elements of each block's part.
  std::size_t part;

  APRIME_DEVICE void operator()(LeasedSpan<const float> x, LeasedSpan<const float> y,
                                LeasedSpan<double> sums) const {
    const std::size_t first = blockIdx.x * part;
    const std::size_t end = first + part < x.size() ? first + part : x.size();
    double sum = 0;
    for (std::size_t i = first + threadIdx.x; i < end; i += blockDim.x) sum += double{x[i]} * y[i];
    sum = block_sum<kThreads>(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] += sum;
  }
};

}  // namespace aprime::kernels
