#pragma once

#include <signal.h>

namespace aprime::os {

/// Installs `handler` for SIGSEGV, SIGBUS and SIGFPE and keeps what was there before, for `forward`. A no-op
/// from the second call on. One thread at a time. \throws Error(resources)
void install_fault_handler(void (*handler)(int, siginfo_t*, void*));

/// Does what would have happened to `signal` had `handler` not been installed: calls the previous owner's
/// handler, or lets the default action end the process at the interrupted instruction. To be called by
/// `handler`, as its last deed. `signal` may differ from the one that came (SIGBUS for SIGSEGV).
void forward_signal(int signal, siginfo_t* info, void* context) noexcept;

}  // namespace aprime::os
