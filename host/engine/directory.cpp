#include "host/engine/directory.hpp"

#include <cassert>
#include <chrono>

#include "host/os/futex.hpp"

namespace aprime::engine {
namespace {
// A wake-up cannot be lost (the waiter's mark and the sleep are checked against the word and the counter), so
// this bound is no correctness device: it turns a bug into a delay that a stress test's clock shows.
constexpr std::chrono::milliseconds kSleepMax{1000};
}  // namespace

void Directory::reserve(GranuleCount count) {
  touched_.reserve((count.value >> kLog2Chunk) + 1);
  words_.reserve(count.value);
}

void Directory::wait(GranuleIndex g, GranuleWord seen) noexcept {
  Slot& slot = slot_of(g);
  const std::uint32_t wakeups = slot.wakeups.load(std::memory_order_acquire);
  std::uint64_t expected = seen.bits();
  if (!seen.has_waiters() && !words_[g.value].compare_exchange_strong(expected, seen.with_waiter().bits(),
                                                                      std::memory_order_acq_rel))
    return;  // it changed already
  // What was seen may be old, and the mark another's who waits for something else: once more, as it is now.
  if (load(g).bits() != seen.with_waiter().bits()) return;
  os::futex_wait(slot.wakeups, wakeups, kSleepMax);
}

template <class Fn>
bool Directory::begin_unless(GranuleIndex g, GranuleState* state, Fn&& gives_up) noexcept {
  for (;;) {
    const GranuleWord w = load(g);
    if (w.busy()) {
      if (gives_up(w.state())) return false;
      wait(g, w);
      continue;
    }
    std::uint64_t expected = w.bits();
    if (words_[g.value].compare_exchange_weak(expected, w.with_busy().bits(), std::memory_order_acq_rel)) {
      mark_touched(g);
      *state = w.state();
      return true;
    }
  }
}

void Directory::wake(GranuleIndex g) noexcept {
  Slot& slot = slot_of(g);
  slot.wakeups.fetch_add(1, std::memory_order_acq_rel);
  os::futex_wake_all(slot.wakeups);
}

GranuleState Directory::begin(GranuleIndex g) noexcept {
  GranuleState state;
  while (!begin_unless(g, &state, [](const GranuleState&) { return false; })) {
  }
  return state;
}

bool Directory::begin_unless_recalled(GranuleIndex g, GranuleState* state) noexcept {
  return begin_unless(g, state, [](const GranuleState& s) { return s.owner.is_mount(); });
}

bool Directory::try_begin(GranuleIndex g, bool unpinned, const GranuleState* wanted) noexcept {
  const GranuleWord w = load(g);
  if (w.busy() || (unpinned && w.pins() != 0) || (wanted != nullptr && w.state() != *wanted)) return false;
  std::uint64_t expected = w.bits();
  if (!words_[g.value].compare_exchange_strong(expected, w.with_busy().bits(), std::memory_order_acq_rel))
    return false;
  mark_touched(g);
  return true;
}

void Directory::publish(GranuleIndex g, const GranuleState& state) noexcept {
  auto& word = words_[g.value];
  std::uint64_t bits = word.load(std::memory_order_relaxed);
  // Waiters and unpinning leases change other fields of the word meanwhile.
  while (!word.compare_exchange_weak(bits, GranuleWord{bits}.with_state(state).bits(),
                                     std::memory_order_acq_rel)) {
  }
  assert(GranuleWord{bits}.busy());
}

void Directory::end(GranuleIndex g, bool pin) noexcept {
  auto& word = words_[g.value];
  std::uint64_t bits = word.load(std::memory_order_relaxed);
  GranuleWord next;
  do {
    next = GranuleWord{bits}.released();
    if (pin) next = next.with_pin();
  } while (!word.compare_exchange_weak(bits, next.bits(), std::memory_order_acq_rel));
  assert(GranuleWord{bits}.busy());
  if (GranuleWord{bits}.has_waiters()) wake(g);
}

void Directory::unpin(GranuleIndex g) noexcept {
  auto& word = words_[g.value];
  std::uint64_t bits = word.load(std::memory_order_relaxed);
  GranuleWord next;
  do {
    assert(GranuleWord{bits}.pins() > 0);
    next = GranuleWord{bits}.without_pin().without_waiter();
  } while (!word.compare_exchange_weak(bits, next.bits(), std::memory_order_acq_rel));
  if (GranuleWord{bits}.has_waiters()) wake(g);
}

}  // namespace aprime::engine
