#include "host/os/store_window.hpp"

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <utility>

#if !defined(__x86_64__)
#error "aprime_store() is written for x86-64; port it to this processor."
#endif

// bool aprime_store(void* to, const void* from, std::size_t size): copies, true. An access of it that traps
// goes on at aprime_store_refused: false. In assembly, so that it is known where each of its accesses is, and
// that there is nothing to undo.
extern "C" bool aprime_store(void* to, const void* from, std::size_t size) noexcept;
extern "C" const char aprime_store_refused;

asm(R"(
  .text
  .p2align 4
  .hidden aprime_store, aprime_store_refused
  .globl aprime_store, aprime_store_refused
  .type aprime_store, @function
aprime_store:
  .cfi_startproc
  endbr64
  movq %rdx, %rcx
  rep movsb
  movl $1, %eax
  ret
aprime_store_refused:
  xorl %eax, %eax
  ret
  .cfi_endproc
  .size aprime_store, . - aprime_store
)");

namespace aprime::os {

StoreWindow::StoreWindow(Mapped memory)
    : memory_(std::move(memory)), traps_(memory_.data(), memory_.size(), *this) {}

bool StoreWindow::is_resident(std::uint64_t at, std::size_t size) const noexcept {
  std::array<unsigned char, 512> pages{};
  const std::uint64_t end = at + size;
  for (std::uint64_t first = at / kPageBytes * kPageBytes; first < end;) {
    const std::uint64_t part = std::min<std::uint64_t>(end - first, pages.size() * kPageBytes);
    if (::mincore(memory_.data() + first, part, pages.data()) != 0) return false;
    const std::uint64_t count = (part + kPageBytes - 1) / kPageBytes;
    if (!std::all_of(pages.begin(), pages.begin() + static_cast<std::ptrdiff_t>(count),
                     [](unsigned char page) { return (page & 1) != 0; }))
      return false;
    first += part;
  }
  return true;
}

bool StoreWindow::store(std::uint64_t at, std::span<const std::byte> from) noexcept {
  return aprime_store(memory_.data() + at, from.data(), from.size());
}

TrapTarget::Answer StoreWindow::on_trap(const Trap& trap) noexcept {
  auto& registers = static_cast<ucontext_t*>(trap.context)->uc_mcontext.gregs;
  const auto at = static_cast<std::uintptr_t>(registers[REG_RIP]);
  const auto begin = reinterpret_cast<std::uintptr_t>(&aprime_store);
  const auto refused = reinterpret_cast<std::uintptr_t>(&aprime_store_refused);
  if (at < begin || at >= refused) return Answer::not_mine;
  registers[REG_RIP] = static_cast<greg_t>(refused);
  return Answer::resolved;
}

}  // namespace aprime::os
