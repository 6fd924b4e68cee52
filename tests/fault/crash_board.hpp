#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace aprime::fault {

inline constexpr std::size_t kCrashGranuleBytes = 16 * 1024;
inline constexpr std::size_t kCrashGranules = 40;
inline constexpr std::size_t kCrashWords = kCrashGranuleBytes / sizeof(std::uint64_t);

/// What the writer tells about itself, in memory that outlives it. Each store has a number and fills a
/// granule with words made of that number and the granule's, so that every word on disk tells where it is
/// from.
struct CrashBoard {
  std::atomic<std::uint64_t> syncs;
  /// The newest store that was begun.
  std::array<std::atomic<std::uint64_t>, kCrashGranules> begun;
  /// The newest store before a sync that returned.
  std::array<std::atomic<std::uint64_t>, kCrashGranules> durable;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "it is shared between processes");

constexpr std::uint64_t crash_word(std::uint64_t store, std::size_t granule) noexcept {
  return store << 16 | granule;
}

}  // namespace aprime::fault
