#pragma once

#include <cstddef>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"

namespace aprime::kernels {

/// What a search shares with the device: this, and then the literal.
struct GrepHeader {
  unsigned long long matches;
};

/// Adds the number of places where the literal occurs within `text` to the header's count. Occurrences may
/// overlap. A thread owns the places where a match begins and reads past them as far as it must, so that no
/// border between threads, blocks or launches hides a match.
struct GrepKernel {
  static constexpr unsigned kThreads = 256;
  static constexpr std::size_t kTileBytes = 64 * 1024;
  static constexpr std::size_t kRunBytes = 16;

  /// At least 1.
  std::size_t literal_bytes;

  APRIME_DEVICE void operator()(LeasedSpan<const unsigned char> text,
                                LeasedSpan<unsigned char> shared) const {
    const unsigned char* literal = shared.data() + sizeof(GrepHeader);
    const std::size_t starts = text.size() < literal_bytes ? 0 : text.size() - literal_bytes + 1;
    const std::size_t tile = blockIdx.x * kTileBytes;
    const std::size_t end = tile + kTileBytes < starts ? tile + kTileBytes : starts;
    unsigned long long found = 0;
    for (std::size_t run = tile + threadIdx.x * kRunBytes; run < end; run += blockDim.x * kRunBytes) {
      const std::size_t run_end = run + kRunBytes < end ? run + kRunBytes : end;
      for (std::size_t start = run; start < run_end; ++start) {
        std::size_t same = 0;
        while (same < literal_bytes && text[start + same] == literal[same]) ++same;
        if (same == literal_bytes) ++found;
      }
    }
    if (found != 0) atomicAdd(&reinterpret_cast<GrepHeader*>(shared.data())->matches, found);
  }
};

}  // namespace aprime::kernels
