#pragma once

#include <array>
#include <atomic>
#include <cassert>
#include <cstdint>

#include "aprime/units.hpp"
#include "host/coherence/granule_word.hpp"
#include "host/os/memory.hpp"

namespace aprime::engine {

using coherence::GranuleState;
using coherence::GranuleWord;

/// The words of one file's granules, and the only code that changes them: transactions begin and end here,
/// and threads that find a granule taken sleep here.
///
/// A transaction holds one granule, or a run of them taken in ascending order; while it holds some it may
/// wait for a further one only if that lies higher, and never for another file's. Everything is `noexcept`,
/// allocates nothing and may run inside a signal handler, except `reserve`.
class Directory {
 public:
  /// Makes granules [0, count) usable. \throws Error(resources)
  void reserve(GranuleCount count);
  GranuleCount capacity() const noexcept { return GranuleCount{words_.capacity()}; }

  GranuleWord load(GranuleIndex g) const noexcept {
    return GranuleWord{words_[g.value].load(std::memory_order_acquire)};
  }

  /// Takes the granule, waiting while another transaction has it. Returns its state.
  GranuleState begin(GranuleIndex g) noexcept;
  /// The same, but gives up (false) if it finds the granule in a transaction that takes it from a mount: that
  /// one waits for the kernel, which may be waiting for the caller.
  bool begin_unless_recalled(GranuleIndex g, GranuleState* state) noexcept;
  /// Takes it only if it is free, unpinned if `unpinned`, and (if `wanted` is given) in exactly that state.
  bool try_begin(GranuleIndex g, bool unpinned, const GranuleState* wanted = nullptr) noexcept;
  /// Waits until no lease pins the granule, or those that do are not `in_the_way()`; no new pin can be taken
  /// meanwhile. \pre held by the caller
  template <class InTheWay>
  void drain_pins(GranuleIndex g, InTheWay&& in_the_way) noexcept {
    for (;;) {
      const GranuleWord w = load(g);
      assert(w.busy());
      if (w.pins() == 0 || !in_the_way()) return;
      wait(g, w);
    }
  }
  /// Makes a new state visible without letting go. \pre held by the caller
  void publish(GranuleIndex g, const GranuleState& state) noexcept;
  /// Lets go, with the state as published, and with one more pin if `pin`. Wakes those who wait.
  void end(GranuleIndex g, bool pin = false) noexcept;
  /// Removes a pin that `end` added.
  void unpin(GranuleIndex g) noexcept;

  /// Calls `fn(GranuleIndex, GranuleWord)` for every granule of the range that was ever taken. Looks at one
  /// mark for each 4096 granules, so that what was never touched costs nothing.
  template <class Fn>
  void for_each_touched(GranuleRange range, Fn&& fn) const;

 private:
  static constexpr unsigned kLog2Chunk = 12;
  static constexpr unsigned kSlots = 256;
  struct alignas(64) Slot {
    std::atomic<std::uint32_t> wakeups{0};
  };

  /// Takes the granule; false if it is taken, in a state for which `gives_up`.
  template <class Fn>
  bool begin_unless(GranuleIndex g, GranuleState* state, Fn&& gives_up) noexcept;

  Slot& slot_of(GranuleIndex g) noexcept { return slots_[(g.value * 0x9E3779B97F4A7C15u) >> 56]; }
  /// Sleeps until the granule's word may have changed from `seen`, having told its holder that somebody
  /// waits.
  void wait(GranuleIndex g, GranuleWord seen) noexcept;
  void wake(GranuleIndex g) noexcept;
  void mark_touched(GranuleIndex g) noexcept {
    auto& mark = touched_[g.value >> kLog2Chunk];
    if (mark.load(std::memory_order_relaxed) == 0) mark.store(1, std::memory_order_relaxed);
  }

  os::GrowingTable<std::atomic<std::uint64_t>> words_;
  os::GrowingTable<std::atomic<std::uint8_t>> touched_;
  std::array<Slot, kSlots> slots_{};
};

template <class Fn>
void Directory::for_each_touched(GranuleRange range, Fn&& fn) const {
  std::uint64_t g = range.first.value;
  while (g < range.end().value) {
    const std::uint64_t chunk_end = ((g >> kLog2Chunk) + 1) << kLog2Chunk;
    const std::uint64_t end = chunk_end < range.end().value ? chunk_end : range.end().value;
    if (touched_[g >> kLog2Chunk].load(std::memory_order_relaxed) != 0)
      for (; g < end; ++g) {
        const GranuleWord w = load(GranuleIndex{g});
        if (w.bits() != 0) fn(GranuleIndex{g}, w);
      }
    g = end;
  }
}

}  // namespace aprime::engine
