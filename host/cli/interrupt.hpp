#pragma once

namespace aprime::cli {

/// While it lives, SIGINT and SIGTERM are counted instead of ending the process. At most one may live at a
/// time.
class InterruptWatch {
 public:
  InterruptWatch();
  ~InterruptWatch();
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;

  /// How many have arrived. Thread-safe.
  int count() const noexcept;
  /// The signal that arrived last. Thread-safe.
  int last_signal() const noexcept;
};

}  // namespace aprime::cli
