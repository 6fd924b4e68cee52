#pragma once

#include <cmath>
#include <cstddef>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"

namespace aprime::kernels {

/// y = a * x + y with one rounding: the fused multiply-add of IEEE 754, asked for by name so that the result
/// does not depend on what a compiler contracts.
struct SaxpyKernel {
  static constexpr unsigned kThreads = 256;
  static constexpr std::size_t kElementsPerThread = 16;

  float a;

  APRIME_DEVICE void operator()(LeasedSpan<float> y, LeasedSpan<const float> x) const {
    const std::size_t tile = std::size_t{blockIdx.x} * blockDim.x * kElementsPerThread;
    for (std::size_t n = 0; n < kElementsPerThread; ++n) {
      const std::size_t i = tile + n * blockDim.x + threadIdx.x;
      if (i < y.size()) y[i] = fmaf(a, x[i], y[i]);
    }
  }
};

}  // namespace aprime::kernels
