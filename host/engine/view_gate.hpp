#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "host/os/futex.hpp"

namespace aprime::engine {

/// Lets many transactions change the CPU's rights on a file at once (`pass`), and one thread change the set
/// of host views while none of them does (`close`). A transaction passes for one protection change together
/// with the publication of the state that belongs to it, and never waits for a granule inside; so the gate is
/// never closed for longer than that. Usable inside a signal handler.
class ViewGate {
 public:
  class Pass {
   public:
    explicit Pass(ViewGate& gate) noexcept : gate_(gate) { gate_.enter(); }
    ~Pass() { gate_.leave(); }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;

   private:
    ViewGate& gate_;
  };
  class Closed {
   public:
    explicit Closed(ViewGate& gate) noexcept : gate_(gate) { gate_.close(); }
    ~Closed() { gate_.open(); }
    Closed(const Closed&) = delete;
    Closed& operator=(const Closed&) = delete;

   private:
    ViewGate& gate_;
  };

 private:
  static constexpr std::uint32_t kClosed = 1u << 31;
  static constexpr std::chrono::milliseconds kSleepMax{100};

  void enter() noexcept {
    for (;;) {
      std::uint32_t w = word_.load(std::memory_order_relaxed);
      if ((w & kClosed) != 0) {
        os::futex_wait(word_, w, kSleepMax);
      } else if (word_.compare_exchange_weak(w, w + 1, std::memory_order_acquire)) {
        return;
      }
    }
  }
  void leave() noexcept {
    if (word_.fetch_sub(1, std::memory_order_release) == (kClosed | 1)) os::futex_wake_all(word_);
  }
  void close() noexcept {
    for (;;) {
      std::uint32_t w = word_.load(std::memory_order_relaxed);
      if ((w & kClosed) != 0) {
        os::futex_wait(word_, w, kSleepMax);
      } else if (word_.compare_exchange_weak(w, w | kClosed, std::memory_order_acquire)) {
        break;
      }
    }
    for (std::uint32_t w = word_.load(std::memory_order_acquire); w != kClosed;
         w = word_.load(std::memory_order_acquire))
      os::futex_wait(word_, w, kSleepMax);
  }
  void open() noexcept {
    word_.store(0, std::memory_order_release);
    os::futex_wake_all(word_);
  }

  std::atomic<std::uint32_t> word_{0};
};

}  // namespace aprime::engine
