#pragma once

#include "host/os/memory.hpp"

namespace aprime::os {

/// Tells the process that made it from the children that inherit it by fork(). Asking costs a load, where
/// asking the kernel for the process's number costs a system call.
class OwnProcess {
 public:
  /// \throws Error(resources)
  OwnProcess();
  bool is_this() const noexcept { return *mark_.data() != std::byte{0}; }

 private:
  /// Zeros in a child, whichever way it was forked.
  Mapped mark_;
};

}  // namespace aprime::os
