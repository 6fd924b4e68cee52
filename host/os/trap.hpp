#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace aprime::os {

/// What a memory access that the hardware refused wanted; or the instruction that could not do its
/// arithmetic.
struct Trap {
  /// Of the access. With SIGFPE, of the instruction.
  std::byte* address;
  bool write;
  /// The interrupted context (`ucontext_t*`), for a target that ends the access instead of resolving it.
  void* context;
  /// SIGSEGV or SIGBUS; SIGFPE too for a thread's own target.
  int signal;
};

/// Serves the traps of one address range. Called on the faulting thread, inside a signal handler, possibly on
/// many threads at once: must not allocate, throw, use stdio, touch trapped memory itself, or switch to
/// another fiber before it returns. It runs on the thread's alternate signal stack if the program gave it one
/// (they are often as small as 8 KiB), else on top of the faulting code's own stack. Asynchronous signals are
/// blocked meanwhile.
class TrapTarget {
 public:
  /// Valid answers: `resolved` (the access is tried again), `not_mine` (it is passed on as the signal that it
  /// was: the access is a defect of the program), `bus_error` (it is passed on as SIGBUS, as the kernel does
  /// for a mapped file that cannot be read).
  enum class Answer : std::uint8_t { resolved, not_mine, bus_error };
  virtual Answer on_trap(const Trap& trap) noexcept = 0;

 protected:
  ~TrapTarget() = default;
};

/// Owns the registration of an address range with the process's handlers of SIGSEGV, SIGBUS and SIGFPE. The
/// registry behind it is process-wide, because signal dispositions are.
///
/// A trap is an access that memory which is mapped refuses: SIGSEGV with code SEGV_ACCERR, or SIGBUS with
/// code BUS_ADRERR. Every other signal, and a trap at an address that nobody registered, goes to its previous
/// owner.
///
/// The handlers are installed with the first registration and stay; whatever handlers other owners had
/// installed are called for each signal that no registered target resolves, under the signal mask they asked
/// for and with the siginfo as it came (or, for `bus_error`, as SIGBUS with code BUS_ADRERR). If there was
/// none, the default action is restored and the signal is raised again. A handler that another owner installs
/// later, on top, must chain to ours likewise; one that is installed at the very moment of the first
/// registration may be lost (sigaction cannot compare and swap).
///
/// A child made by fork() starts with an empty registry: registered memory is not inherited, and touching it
/// is an ordinary crash.
///
/// Thread-safe. Finding the target of a trap takes no lock. Destruction waits until no thread is inside the
/// target, so the target may be destroyed right after; it must not happen inside the target.
class TrapRegistration {
 public:
  TrapRegistration() = default;
  /// \pre The range overlaps no registered one.
  /// \throws Error(resources) if the handlers cannot be installed.
  TrapRegistration(std::byte* begin, std::size_t size, TrapTarget& target);
  TrapRegistration(TrapRegistration&& other) noexcept = default;
  TrapRegistration& operator=(TrapRegistration&& other) noexcept;
  ~TrapRegistration();

 private:
  friend struct TrapRegistry;
  struct Entry;
  std::shared_ptr<Entry> entry_;
};

/// Lets `target` answer for the calling thread's faults (SIGSEGV, SIGBUS) at addresses that nobody
/// registered: wild pointers; and for its arithmetic (SIGFPE). Null ends that. The address given to it is 0
/// where the processor does not tell (non-canonical addresses).
void set_thread_trap_target(TrapTarget* target) noexcept;

/// Whether a byte of [begin, begin + size) lies in a registered range: touching it may trap. Thread-safe,
/// lock-free.
bool is_trapped(const std::byte* begin, std::size_t size) noexcept;

}  // namespace aprime::os
