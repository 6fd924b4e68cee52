#pragma once

#include <atomic>
#include <shared_mutex>

namespace aprime::mount {

/// Lets requests for a file's bytes through, and stops them while it changes who serves them: the source, or
/// the runtime that gives the file to devices. Thread-safe.
///
/// A request that is let through may wait long, and for other requests: one for a page, or one that changes
/// the size, may be what a recall waits for, for which yet another request waits. Those must always get
/// through, also while somebody wants to close the gate (the C library's lock lets readers pass waiting
/// writers). Reads and writes by programs hold nothing that others wait for, and would keep the gate open for
/// ever if they followed each other closely enough: they wait as soon as somebody wants to close it.
class ServingGate {
 public:
  using Passed = std::shared_lock<std::shared_mutex>;

  /// For all requests.
  [[nodiscard]] Passed pass() { return Passed(mutex_); }
  /// For reads and writes by programs.
  [[nodiscard]] Passed pass_if_open() {
    for (;;) {
      closing_.wait(true);
      Passed passed(mutex_);
      if (!closing_.load()) return passed;
    }
  }

  /// Closed, and nobody is inside, as long as it lives. One at a time for each gate.
  class Closed {
   public:
    explicit Closed(ServingGate& gate) : gate_(gate) {
      gate_.closing_.store(true);
      gate_.mutex_.lock();
    }
    ~Closed() {
      gate_.closing_.store(false);
      gate_.mutex_.unlock();
      gate_.closing_.notify_all();
    }
    Closed(const Closed&) = delete;
    Closed& operator=(const Closed&) = delete;

   private:
    ServingGate& gate_;
  };

 private:
  std::shared_mutex mutex_;
  std::atomic<bool> closing_{false};
};

}  // namespace aprime::mount
