#pragma once

#include <atomic>
#include <shared_mutex>
#include <vector>

#include "aprime/error.hpp"
#include "host/os/gate.hpp"

namespace aprime::device {

/// What must have happened before the first kernel after a pause may run.
class BeforeKernels {
 public:
  /// Valid answers: ok; resources (no kernel may run, and the next one asks again).
  virtual Status before_kernels() noexcept = 0;

 protected:
  ~BeforeKernels() = default;
};

/// Whether kernels run on a device. While none does, nobody can use a right there, and to take it from the
/// hardware can wait until one is about to begin: all at once then, and not at all for copies that are gone
/// by then.
///
/// Thread-safe. `while_none_runs` and `hold_off` may be called inside a fault.
class KernelActivity {
 public:
  /// Kernels may run as long as there is one of these. \throws Error as `BeforeKernels` answers
  class Running {
   public:
    explicit Running(KernelActivity& activity) : activity_(activity) { activity_.begin(); }
    ~Running() { activity_.running_.fetch_sub(1, std::memory_order_release); }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

   private:
    KernelActivity& activity_;
  };

  /// Asked before kernels begin, as long as it exists.
  class Registration {
   public:
    /// \throws std::bad_alloc
    Registration(KernelActivity& activity, BeforeKernels& asked);
    ~Registration();
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;

   private:
    KernelActivity& activity_;
    BeforeKernels& asked_;
  };

  /// While it is held, nobody is asked to do what must happen before kernels.
  [[nodiscard]] std::shared_lock<os::Gate> hold_off() noexcept { return std::shared_lock(gate_); }

  /// Calls `fn()` and returns true if no kernel runs; none begins before that has returned.
  template <class Fn>
  bool while_none_runs(const Fn& fn) noexcept {
    if (running_.load(std::memory_order_relaxed) != 0) return false;
    const std::shared_lock held = hold_off();
    // Acquires what the last kernel did.
    if (running_.load(std::memory_order_acquire) != 0) return false;
    fn();
    return true;
  }

 private:
  void begin();

  /// Had alone to ask, and to change who is asked and that kernels run.
  os::Gate gate_;
  std::atomic<unsigned> running_{0};
  std::vector<BeforeKernels*> asked_;
};

}  // namespace aprime::device
