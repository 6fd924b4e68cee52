#pragma once

#include <csignal>
#include <vector>

namespace aprime::cli {

/// While it lives, SIGINT, SIGTERM and SIGHUP are counted instead of ending the process, except those that
/// the process was started to ignore (`nohup`, `&` in scripts); and a reader of its output who has gone away,
/// often by the same signal, is an error of the write and ends nothing. At most one may live at a time.
class InterruptWatch {
 public:
  InterruptWatch();
  ~InterruptWatch();
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;

  /// How many have arrived. Thread-safe. However many SIGHUP count as one: shell and kernel both send one
  /// when a terminal goes away, and nobody is left who could mean a second one.
  int count() const noexcept;
  /// The signal that arrived last. Thread-safe.
  int last_signal() const noexcept;

 private:
  struct Replaced {
    int number;
    struct sigaction action;
  };

  void replace(int number, void (*handler)(int));

  std::vector<Replaced> replaced_;
};

}  // namespace aprime::cli
