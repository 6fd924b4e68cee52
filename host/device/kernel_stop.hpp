#pragma once

#include "aprime/grid.hpp"

#include <ucontext.h>
#include <cstddef>
#include <cstdint>

// Ending a kernel of the emulated device from inside, and finding out that one is inside.

namespace aprime::device {

/// Why a kernel was stopped. The executor hands it on; the engine gives `kind` and `source` their meaning.
struct KernelFault {
  int kind = 0;
  /// Byte offset in the file that `source` identifies.
  std::uint64_t offset = 0;
  bool write = false;
  const void* source = nullptr;
};

/// The kernel thread that the caller is.
struct CurrentKernel {
  /// nullptr when the caller is no kernel thread; valid until the launch ends otherwise.
  const char* name = nullptr;
  Index3 block;
  Index3 thread;
};

/// True on a worker of the emulated device while it runs a kernel. Async-signal-safe.
[[nodiscard]] bool on_device_thread() noexcept;

/// Async-signal-safe.
[[nodiscard]] CurrentKernel current_kernel() noexcept;

/// Whether the address lies just below the stack of the calling kernel thread: an access there means that the
/// stack is used up. Async-signal-safe. Precondition: on_device_thread().
[[nodiscard]] bool is_below_current_stack(const void* address) noexcept;

/// Ends the launch that the calling kernel thread belongs to; its Executor::run() returns the first such
/// fault. The threads of this block are abandoned where they are: nothing is unwound, destructors of kernel
/// locals do not run, and a lock that the kernel holds stays held. Other blocks end where they next wait, or
/// when done. Precondition: on_device_thread(), and not in a signal handler.
[[noreturn]] void stop_current_kernel(const KernelFault& fault) noexcept;

/// As stop_current_kernel(), for a handler of a synchronous signal (SIGSEGV, SIGBUS, SIGFPE): edits the saved
/// context so that returning from the handler continues there instead of at the faulting instruction. The
/// handler must return. It may run on the kernel's stack or on an alternate one; where the kernel's stack is
/// used up, only on that. Async-signal-safe. Precondition: on_device_thread().
void redirect_to_stop(ucontext_t& context, const KernelFault& fault) noexcept;

}  // namespace aprime::device
