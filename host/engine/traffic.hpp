#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "aprime/units.hpp"

namespace aprime::engine {

/// Remembers, for the granules that moved lately, what was bounced and how often they went to and fro. A
/// small lossy hash table: two granules that collide forget each other, which costs speed and nothing else.
/// Lock-free, allocates nothing.
class Traffic {
 public:
  /// Adaptive host access: whether `bytes` more of this device-owned granule should be bounced rather than
  /// the granule moved home. Yes, until the bytes bounced so far add up to the granule's size (ski rental;
  /// see HostAccess::adaptive): even the first access to the whole of it is cheaper bounced.
  bool should_bounce(GranuleIndex g, ByteCount bytes, ByteCount granule) noexcept {
    auto& slot = bounced_[hash(g)];
    const std::uint64_t tag = g.value << kBytesBits;
    std::uint64_t old = slot.load(std::memory_order_relaxed);
    const std::uint64_t before = (old & ~kBytesMask) == tag ? old & kBytesMask : 0;
    const bool bounce = before < granule.value;
    slot.store(bounce ? tag | (before + bytes.value) : 0, std::memory_order_relaxed);
    return bounce;
  }

  /// How long an access that takes this granule from another side should wait first. Zero, unless the granule
  /// changed sides `kRounds` times with less than `kQuick` between the changes: then each side keeps it for
  /// `kHold`, so that work gets done between two moves.
  std::chrono::microseconds on_move(GranuleIndex g, std::uint64_t now_us) noexcept {
    auto& slot = moves_[hash(g)];
    const std::uint64_t old = slot.load(std::memory_order_relaxed);
    const auto tag = static_cast<std::uint16_t>(g.value);
    const bool same = static_cast<std::uint16_t>(old) == tag;
    // The slot has room for 40 bits of the time, which is 12 days: what lies between is counted within them.
    const std::uint64_t last_us = old >> 24;
    const std::uint64_t since_us = (now_us - last_us) & kTimeMask;
    const std::uint64_t quick = same && since_us < kQuick ? (old >> 16 & 0xff) : 0;
    const std::uint64_t rounds = quick < kRounds ? quick + 1 : kRounds;
    slot.store(now_us << 24 | rounds << 16 | tag, std::memory_order_relaxed);
    return std::chrono::microseconds{rounds < kRounds ? 0 : kHold};
  }

 private:
  static constexpr unsigned kLog2Slots = 10;
  static constexpr unsigned kBytesBits = 22;  // more than the largest granule
  static constexpr std::uint64_t kBytesMask = (1u << kBytesBits) - 1;
  static constexpr std::uint64_t kTimeMask = (std::uint64_t{1} << 40) - 1;
  static constexpr std::uint64_t kQuick = 1000;
  static constexpr std::uint64_t kRounds = 16;
  static constexpr std::uint64_t kHold = 200;

  static std::size_t hash(GranuleIndex g) noexcept {
    return static_cast<std::size_t>((g.value * 0x9E3779B97F4A7C15u) >> (64 - kLog2Slots));
  }

  std::array<std::atomic<std::uint64_t>, 1u << kLog2Slots> bounced_{};
  std::array<std::atomic<std::uint64_t>, 1u << kLog2Slots> moves_{};
};

}  // namespace aprime::engine
