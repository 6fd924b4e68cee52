#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "aprime/access.hpp"
#include "aprime/units.hpp"

namespace aprime::engine {

/// Recognises sequential faults, several streams at once (each worker of a device walks its own part of a
/// file), and says how many granules to serve in one go: 1 at first, twice as many each time a stream goes
/// on, up to a maximum. This is the kernel's on-demand readahead (mm/readahead.c) without its look-ahead
/// mark.
///
/// A guess only: races between threads may lose an update, which costs speed and nothing else. Lock-free.
class StreamDetector {
 public:
  /// Granules [g, g + result) should be served now. \pre max >= 1
  GranuleCount on_fault(GranuleIndex g, GranuleCount max) noexcept {
    const Advice advice = advice_.load(std::memory_order_relaxed);
    if (advice == Advice::random || max.value == 1) return GranuleCount{1};
    if (advice == Advice::sequential || advice == Advice::will_need) return max;
    for (auto& stream : streams_) {
      const std::uint64_t packed = stream.load(std::memory_order_relaxed);
      if (packed >> kLengthBits != g.value + 1 || packed == 0) continue;
      std::uint64_t length = (packed & kLengthMask) * 2;
      if (length > max.value) length = max.value;
      stream.store(pack(g.value + length, length), std::memory_order_relaxed);
      return GranuleCount{length};
    }
    const unsigned victim = next_.fetch_add(1, std::memory_order_relaxed) % kStreams;
    streams_[victim].store(pack(g.value + 1, 1), std::memory_order_relaxed);
    return GranuleCount{1};
  }
  void advise(Advice advice) noexcept { advice_.store(advice, std::memory_order_relaxed); }

 private:
  static constexpr unsigned kStreams = 16;
  static constexpr unsigned kLengthBits = 12;
  static constexpr std::uint64_t kLengthMask = (1u << kLengthBits) - 1;
  /// The granule expected next, plus one so that an unused slot is 0, and the length of the last batch.
  static constexpr std::uint64_t pack(std::uint64_t next, std::uint64_t length) noexcept {
    return (next + 1) << kLengthBits | length;
  }

  std::array<std::atomic<std::uint64_t>, kStreams> streams_{};
  std::atomic<unsigned> next_{0};
  std::atomic<Advice> advice_{Advice::normal};
};

}  // namespace aprime::engine
