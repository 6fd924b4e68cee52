#pragma once

#include <signal.h>

#include <cstddef>

#include "host/os/memory.hpp"

namespace aprime::os {

/// A stack of its own for the calling thread's signal handlers, so that they also run where the thread has
/// used up its own. To be made and destroyed on that thread, which has the one from before back afterwards.
class AlternateStack {
 public:
  /// \throws Error(resources)
  explicit AlternateStack(std::size_t bytes);
  ~AlternateStack();
  AlternateStack(const AlternateStack&) = delete;
  AlternateStack& operator=(const AlternateStack&) = delete;

 private:
  Mapped memory_;
  stack_t before_{};
};

}  // namespace aprime::os
