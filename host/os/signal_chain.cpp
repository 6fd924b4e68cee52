#include "host/os/signal_chain.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>

#include "host/os/failure.hpp"
#include "host/os/syscalls.hpp"

namespace aprime::os {
namespace {

struct Previous {
  struct ::sigaction action {};
  /// A handler that asked for SA_RESETHAND has had its one call.
  std::atomic<bool> spent{false};
};

// Written before our handler is installed, constant afterwards. Static storage without destructors, because
// signals come until the process is gone.
constinit Previous previous_segv;
constinit Previous previous_bus;
constinit Previous previous_fpe;
constinit std::atomic<bool> installed{false};

Previous& previous_of(int signal) noexcept {
  switch (signal) {
    case SIGBUS: return previous_bus;
    case SIGFPE: return previous_fpe;
    default: return previous_segv;
  }
}

bool is_from_kernel(const siginfo_t* info) noexcept { return info->si_code > 0; }

/// Ends the process by `signal`, with `info`, at the interrupted instruction. The signal is queued while it
/// is blocked and delivered when the handler returns, so that a core dump shows the program where it went
/// wrong, not us. Merely returning would not do: the access may succeed the next time, or fail with another
/// signal.
void default_action(int signal, siginfo_t* info, ucontext_t* context) noexcept {
  struct ::sigaction action {};
  action.sa_handler = SIG_DFL;
  sys::sigaction(signal, &action, nullptr);
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, signal);
  pthread_sigmask(SIG_BLOCK, &only, nullptr);
  sigdelset(&context->uc_sigmask, signal);
  if (::syscall(SYS_rt_tgsigqueueinfo, ::getpid(), ::gettid(), signal, info) != 0) ::raise(signal);
}

/// What the kernel would have blocked while the previous handler runs; also lets it run into faults of its
/// own.
void apply_mask(int signal, const struct ::sigaction& action, const ucontext_t* context) noexcept {
  sigset_t mask;
  sigorset(&mask, &context->uc_sigmask, &action.sa_mask);
  if ((action.sa_flags & SA_NODEFER) == 0) sigaddset(&mask, signal);
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
}

void install(int signal, void (*handler)(int, siginfo_t*, void*)) {
  Previous& previous = previous_of(signal);
  struct ::sigaction action {};
  action.sa_sigaction = handler;
  // SA_ONSTACK: a thread that overflowed its stack can only be told so on an alternate one; the owners we
  // chain to count on it, and the Go runtime demands it of every handler. Threads without an alternate stack
  // are served where they are. No SA_NODEFER: a target that touches trapped memory is a defect, better
  // ended at once than by a stack overflow.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  // A handler of the program that ran on top of ours and touched trapped memory would be killed, its SIGSEGV
  // being blocked: asynchronous signals wait until the access is served. Those that an instruction raises
  // cannot wait.
  sigfillset(&action.sa_mask);
  for (const int synchronous : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS}) {
    sigdelset(&action.sa_mask, synchronous);
  }
  // Asked first, so that the answer is in place before the first signal can arrive.
  if (sys::sigaction(signal, nullptr, &previous.action) != 0 ||
      sys::sigaction(signal, &action, nullptr) != 0) {
    throw failure(Errc::resources, "cannot install a handler for the processor's faults", errno);
  }
}

}  // namespace

void install_fault_handler(void (*handler)(int, siginfo_t*, void*)) {
  if (installed.load(std::memory_order_acquire)) return;
  constexpr std::array signals{SIGSEGV, SIGBUS, SIGFPE};
  for (std::size_t i = 0; i < signals.size(); ++i) {
    try {
      install(signals[i], handler);
    } catch (...) {
      while (i-- > 0) sys::sigaction(signals[i], &previous_of(signals[i]).action, nullptr);
      throw;
    }
  }
  installed.store(true, std::memory_order_release);
}

void forward_signal(int signal, siginfo_t* info, void* context) noexcept {
  auto* const interrupted = static_cast<ucontext_t*>(context);
  Previous& previous = previous_of(signal);
  const struct ::sigaction& action = previous.action;
  if ((action.sa_flags & SA_SIGINFO) == 0 && action.sa_handler == SIG_IGN && !is_from_kernel(info)) return;
  // A fault that is ignored would come again for ever; the kernel does not let it, and neither do we.
  const bool is_default =
      (action.sa_flags & SA_SIGINFO) == 0 && (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN);
  const bool once = (action.sa_flags & static_cast<int>(SA_RESETHAND)) != 0;
  if (is_default || (once && previous.spent.exchange(true))) return default_action(signal, info, interrupted);
  apply_mask(signal, action, interrupted);
  if ((action.sa_flags & SA_SIGINFO) != 0) {
    action.sa_sigaction(signal, info, context);
  } else {
    action.sa_handler(signal);
  }
}

}  // namespace aprime::os
