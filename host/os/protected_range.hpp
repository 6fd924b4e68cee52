#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "aprime/error.hpp"
#include "aprime/units.hpp"
#include "host/os/gate.hpp"
#include "host/os/memory.hpp"

namespace aprime::os {

/// Rights of the CPU on a page, as mprotect takes them. Ordered: each includes the ones before it.
enum class Protection : std::uint8_t { none = 0, read = 1, read_write = 2 };

/// Memory whose protection is set per granule with mprotect, and which never runs out of memory areas.
///
/// Each change of protection inside a mapping costs the kernel an area (VMA), and a process may have only
/// vm.max_map_count of them. Taking more rights away than was asked for is always safe: it costs a spurious
/// fault, which grants the right again. So when a change is refused with ENOMEM, or when this process's
/// ranges together pass their share of the areas (half of vm.max_map_count, read when the first range is
/// made) and this range has a good part of them, the range *over-protects*: it takes all rights from a span
/// of granules, which merges its areas into one, and then tries again; span after span, at last from the
/// whole range, which always succeeds, because it needs no split. The spans follow a clock hand around the
/// range rather than the place of the change: the neighbourhood of a change is the part of the range that is
/// in use. Spans that are *held*, because they cannot fault (the kernel works on them in a system call), are
/// passed over as long as the others are enough.
///
/// The protection of a granule is therefore an upper bound that the owner of the rights sets, of which the
/// hardware may give less at any time.
///
/// Thread-safe for different granules; calls on one granule must be serialised by the caller (a granule's
/// transaction does). Over-protection of a granule may follow a grant on it in another thread at once: the
/// grant is then lost and the access faults again. Nothing allocates; locks are held across mprotect, where
/// no fault can happen.
class ProtectedRange {
 public:
  /// `memory` is mapped with protection `initial` everywhere; its last granule may be partial. `ceiling` is
  /// the most that `set` will ever grant. \pre granule is a multiple of the page size; initial <= ceiling
  /// \throws Error(resources)
  ProtectedRange(Mapped memory, ByteCount granule, Protection initial, Protection ceiling);
  ~ProtectedRange();
  ProtectedRange(const ProtectedRange&) = delete;
  ProtectedRange& operator=(const ProtectedRange&) = delete;

  /// Sets the protection of granules [first, first + count) of this range (counted from its start) to `p`, or
  /// to `ceiling` if that is less. When it returns ok, no thread of the process can use a right that was
  /// taken away (mprotect flushes the TLBs). Does nothing for granules that have it already. Fails only with
  /// `resources`, and then only when granting; taking away always succeeds in the end.
  Status set(GranuleIndex first, GranuleCount count, Protection p) noexcept;

  /// A span that over-protection passes over. Its owner keeps it where it is from `hold` to `let_go`.
  struct Held {
    GranuleRange span;
    // This class's.
    Held* next = nullptr;
    Held** at = nullptr;
  };
  /// Any number may be held, also of the same granules. Takes and gives no right.
  void hold(Held& held) noexcept;
  void let_go(Held& held) noexcept;

  std::byte* data() const noexcept { return memory_.data(); }
  std::size_t size() const noexcept { return memory_.size(); }
  /// How often rights were taken from granules that nobody asked for.
  std::uint64_t over_protections() const noexcept {
    return over_protections_.load(std::memory_order_relaxed);
  }
  /// Areas this range is divided into by its protections, at least 1 (exact while no call is under way).
  std::uint64_t areas() const noexcept { return areas_.load(std::memory_order_relaxed); }

 private:
  /// Half-open range of granules of this range.
  struct Span {
    std::uint64_t first;
    std::uint64_t end;
  };
  /// 32 granules of 2 bits each.
  using Word = std::atomic<std::uint64_t>;

  Protection recorded(std::uint64_t granule) const noexcept;
  /// Whether every granule of the span is recorded to have at least / exactly this.
  bool all_at_least(Span span, Protection p) const noexcept;
  bool all_exactly(Span span, Protection p) const noexcept;
  /// Neighbours of different protection, both within the span.
  std::uint64_t boundaries(Span span) const noexcept;
  void record(Span span, Protection p) noexcept;
  void fill(Span span, Protection p) noexcept;
  bool protect(Span span, Protection p) noexcept;
  bool is_crowded(Span span, Protection p) const noexcept;
  Status set_crowded(Span span, Protection p) noexcept;
  void over_protect_next() noexcept;
  void over_protect_all() noexcept;
  bool take_around_held(Span span) noexcept;

  // Constant after construction.
  Mapped memory_;
  const std::uint64_t granule_;
  const std::uint64_t granules_;
  const Protection initial_;
  const Protection ceiling_;

  /// Shared by changes of single spans, taken alone to over-protect: a grant must not slip between the
  /// mprotect of an over-protection and its record, which would then show less than the hardware gives.
  Gate gate_;
  /// Serialises writers of the record, which makes the count of areas exact.
  std::mutex record_mutex_;
  /// What the hardware gives, xor `initial_`, so that untouched memory records the initial protection.
  Mapped record_;
  std::atomic<std::uint64_t> areas_{1};
  std::atomic<std::uint64_t> over_protections_{0};
  // Guarded by holding `gate_` alone.
  /// Where the next over-protection begins.
  std::uint64_t hand_ = 0;
  /// In order of their first granules.
  Held* held_ = nullptr;
};

}  // namespace aprime::os
