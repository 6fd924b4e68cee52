#include "host/device/kernel_stop.hpp"

#include "host/device/block_runner.hpp"

#include <cassert>

#if !defined(__x86_64__) || !defined(__linux__)
#error "redirect_to_stop() edits the registers a signal handler is given: Linux on x86-64 only"
#endif

// Where redirect_to_stop() lets an interrupted kernel continue. The stub ends the call chain for unwinders
// and debuggers, which must not take what lies on the stack for a return address, and aligns the stack as the
// ABI wants it at a call.
extern "C" void aprime_stop_trampoline() noexcept;
extern "C" [[noreturn, gnu::used]] void aprime_stop_redirected() noexcept;

asm(R"(
  .text
  .p2align 4
  .hidden aprime_stop_trampoline
  .globl aprime_stop_trampoline
  .type aprime_stop_trampoline, @function
aprime_stop_trampoline:
  .cfi_startproc
  .cfi_undefined rip
  endbr64
  cld
  xorl %ebp, %ebp
  andq $-16, %rsp
  call aprime_stop_redirected
  ud2
  .cfi_endproc
  .size aprime_stop_trampoline, . - aprime_stop_trampoline
)");

extern "C" [[gnu::visibility("hidden")]] void aprime_stop_redirected() noexcept {
  aprime::device::BlockRunner& runner = *aprime::device::current_runner;
  runner.stop(runner.redirected);
}

namespace aprime::device {

namespace {

// The System V ABI lets a leaf function use this much below its stack pointer. When the handler runs on the
// kernel's own stack, the signal frame lies right below that, and sigreturn has yet to read it: so the stack
// pointer is moved but nothing is pushed. By the time the trampoline pushes, the signal frame is dead.
constexpr std::int64_t red_zone_bytes = 128;

}  // namespace

bool on_device_thread() noexcept { return current_runner != nullptr && current_runner->in_kernel(); }

CurrentKernel current_kernel() noexcept {
  if (!on_device_thread()) return {};
  return CurrentKernel{current_runner->kernel_name(), detail::blockIdx, detail::threadIdx};
}

bool is_below_current_stack(const void* address) noexcept {
  assert(on_device_thread());
  return current_runner->is_below_stack(address);
}

void stop_current_kernel(const KernelFault& fault) noexcept {
  assert(on_device_thread());
  current_runner->stop(fault);
}

void redirect_to_stop(ucontext_t& context, const KernelFault& fault) noexcept {
  assert(on_device_thread());
  current_runner->redirected = fault;
  auto& registers = context.uc_mcontext.gregs;
  registers[REG_RIP] = static_cast<greg_t>(reinterpret_cast<std::uintptr_t>(&aprime_stop_trampoline));
  auto* const pointer = reinterpret_cast<std::byte*>(registers[REG_RSP] - red_zone_bytes);  // NOLINT
  registers[REG_RSP] =
      static_cast<greg_t>(reinterpret_cast<std::uintptr_t>(current_runner->room_to_stop(pointer)));
}

}  // namespace aprime::device
