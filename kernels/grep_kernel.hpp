#pragma once

#include <cstddef>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"

namespace aprime::kernels {

/// What a search shares with the device: this, the literal, and two buffers of one byte less than the literal
/// has. One of them holds the end of what was searched before, which may begin a match.
struct GrepHeader {
  unsigned long long matches;
};

/// Adds the number of places where the literal occurs in the end of what was searched before and `text`, one
/// after the other, to the header's count, and keeps the end of both for the next launch. Occurrences may
/// overlap. A thread owns the places where a match begins and reads past them as far as it must, so that no
/// border between threads, blocks or launches hides a match. At least one block.
struct GrepKernel {
  static constexpr unsigned kThreads = 256;
  static constexpr std::size_t kTileBytes = 64 * 1024;
  static constexpr std::size_t kRunBytes = 16;

  /// At least 1.
  std::size_t literal_bytes;
  /// Of the end of what was searched before: `literal_bytes` - 1, or less if there was no more.
  std::size_t kept_bytes;
  /// The buffer that holds it; the other one is stored to.
  unsigned kept_in;

  static constexpr std::size_t shared_bytes(std::size_t literal) noexcept {
    return sizeof(GrepHeader) + literal + 2 * (literal - 1);
  }

  APRIME_DEVICE void operator()(LeasedSpan<const unsigned char> piece,
                                LeasedSpan<unsigned char> shared) const {
    const unsigned char* literal = shared.data() + sizeof(GrepHeader);
    unsigned char* const buffers = shared.data() + sizeof(GrepHeader) + literal_bytes;
    const Text text{buffers + kept_in * (literal_bytes - 1), kept_bytes, piece};
    if (blockIdx.x == 0) keep_end(text, buffers + (1 - kept_in) * (literal_bytes - 1));
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

 private:
  struct Text {
    const unsigned char* kept;
    std::size_t kept_bytes;
    LeasedSpan<const unsigned char> piece;

    APRIME_DEVICE std::size_t size() const { return kept_bytes + piece.size(); }
    APRIME_DEVICE unsigned char operator[](std::size_t i) const {
      return i < kept_bytes ? kept[i] : piece[i - kept_bytes];
    }
  };

  APRIME_DEVICE void keep_end(const Text& text, unsigned char* to) const {
    const std::size_t count = text.size() < literal_bytes - 1 ? text.size() : literal_bytes - 1;
    for (std::size_t i = threadIdx.x; i < count; i += blockDim.x) to[i] = text[text.size() - count + i];
  }
};

}  // namespace aprime::kernels
