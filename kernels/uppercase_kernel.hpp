#pragma once

#include <cstddef>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"

namespace aprime::kernels {

/// Turns the letters a to z of ASCII into A to Z, in place. Stores only where a byte changes, so that
/// granules without such letters stay clean.
struct UppercaseKernel {
  static constexpr unsigned kThreads = 256;
  static constexpr std::size_t kTileBytes = 64 * 1024;
  static constexpr std::size_t kRunBytes = 16;

  APRIME_DEVICE void operator()(LeasedSpan<unsigned char> text) const {
    const std::size_t tile = blockIdx.x * kTileBytes;
    const std::size_t end = tile + kTileBytes < text.size() ? tile + kTileBytes : text.size();
    for (std::size_t run = tile + threadIdx.x * kRunBytes; run < end; run += blockDim.x * kRunBytes) {
      const std::size_t run_end = run + kRunBytes < end ? run + kRunBytes : end;
      for (std::size_t i = run; i < run_end; ++i) {
        const unsigned char byte = text[i];
        if (byte >= 'a' && byte <= 'z') text[i] = static_cast<unsigned char>(byte - 'a' + 'A');
      }
    }
  }
};

}  // namespace aprime::kernels
