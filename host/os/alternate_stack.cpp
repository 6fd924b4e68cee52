#include "host/os/alternate_stack.hpp"

#include <sys/mman.h>

#include <cassert>
#include <cerrno>

#include "host/os/failure.hpp"
#include "host/os/syscalls.hpp"

namespace aprime::os {

AlternateStack::AlternateStack(std::size_t bytes) : memory_(Mapped::reserved(kPageBytes + bytes)) {
  stack_t stack{};
  stack.ss_sp = memory_.data() + kPageBytes;
  stack.ss_size = memory_.size() - kPageBytes;
  if (sys::mprotect(memory_.data(), kPageBytes, PROT_NONE) != 0 || ::sigaltstack(&stack, &before_) != 0)
    throw failure(Errc::resources, "cannot set up a stack for signal handlers", errno);
}

AlternateStack::~AlternateStack() {
  [[maybe_unused]] const int rc = ::sigaltstack(&before_, nullptr);
  assert(rc == 0);
}

}  // namespace aprime::os
