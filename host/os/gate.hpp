#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "host/os/futex.hpp"

namespace aprime::os {

/// A lock that many share or one has alone, and that one who wants it alone gets soon: newcomers wait for
/// him. (glibc's read-write lock prefers readers; with enough threads in mprotect there is always one.)
/// Usable inside the handler of a fault, as long as no fault can happen while it is held. Not recursive.
class Gate {
 public:
  /// Meets the standard's SharedMutex as far as std::shared_lock and std::lock_guard need it.
  void lock_shared() noexcept {
    while ((state_.fetch_add(1, std::memory_order_acquire) & kAlone) != 0) {
      unlock_shared();
      wait_while([](std::uint32_t s) { return (s & kAlone) != 0; });
    }
  }
  void unlock_shared() noexcept {
    // Somebody waits to be alone, and this was the last to share.
    if (state_.fetch_sub(1, std::memory_order_release) == (kAlone | 1)) futex_wake_all(state_);
  }
  void lock() noexcept {
    while ((state_.fetch_or(kAlone, std::memory_order_acquire) & kAlone) != 0) {
      wait_while([](std::uint32_t s) { return (s & kAlone) != 0; });
    }
    wait_while([](std::uint32_t s) { return s != kAlone; });
  }
  void unlock() noexcept {
    state_.fetch_and(~kAlone, std::memory_order_release);
    futex_wake_all(state_);
  }

 private:
  static constexpr std::uint32_t kAlone = std::uint32_t{1} << 31;

  template <class Condition>
  void wait_while(Condition condition) noexcept {
    for (;;) {
      const std::uint32_t seen = state_.load(std::memory_order_acquire);
      if (!condition(seen)) return;
      futex_wait(state_, seen, std::chrono::milliseconds(10));
    }
  }

  /// The number of those who share, and whether one is alone or wants to be.
  std::atomic<std::uint32_t> state_{0};
};

}  // namespace aprime::os
