#pragma once

#include <cstddef>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"

namespace aprime::kernels {

/// Adds the number of bytes of each value to `bins` (256 of them). A block counts its tile in shared memory
/// first, because counters in device memory would be fought over by the whole grid.
struct HistogramKernel {
  static constexpr unsigned kThreads = 256;
  static constexpr std::size_t kTileBytes = 64 * 1024;
  static constexpr std::size_t kRunBytes = 16;

  APRIME_DEVICE void operator()(LeasedSpan<const unsigned char> bytes,
                                LeasedSpan<unsigned long long> bins) const {
    __shared__ unsigned counts[256];
    for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) counts[i] = 0;
    __syncthreads();

    const std::size_t tile = blockIdx.x * kTileBytes;
    const std::size_t end = tile + kTileBytes < bytes.size() ? tile + kTileBytes : bytes.size();
    for (std::size_t run = tile + threadIdx.x * kRunBytes; run < end; run += blockDim.x * kRunBytes) {
      const std::size_t run_end = run + kRunBytes < end ? run + kRunBytes : end;
      for (std::size_t i = run; i < run_end; ++i) atomicAdd(&counts[bytes[i]], 1U);
    }
    __syncthreads();

    for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) {
      if (counts[i] != 0) atomicAdd(&bins[i], counts[i]);
    }
  }
};

}  // namespace aprime::kernels
