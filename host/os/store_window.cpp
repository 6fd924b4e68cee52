#include "host/os/store_window.hpp"

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <utility>

#if !defined(__x86_64__)
#error "aprime_store() is written for x86-64; port it to this processor."
#endif

// bool aprime_store(void* to, const void* from, std::size_t size): copies, true.
// bool aprime_dirty(void* page): stores to it what it has, in one step, true.
// An access of theirs that traps goes on at aprime_store_refused: false. In assembly, so that it is known
// where each access is, and that there is nothing to undo.
extern "C" bool aprime_dirty(void* page) noexcept;
extern "C" bool aprime_store(void* to, const void* from, std::size_t size) noexcept;
extern "C" const char aprime_store_refused;

asm(R"(
  .text
  .p2align 4
  .hidden aprime_dirty, aprime_store, aprime_store_refused
  .globl aprime_dirty, aprime_store, aprime_store_refused
  .type aprime_dirty, @function
  .type aprime_store, @function
aprime_dirty:
  .cfi_startproc
  endbr64
  lock orb $0, (%rdi)
  movl $1, %eax
  ret
  .cfi_endproc
  .size aprime_dirty, . - aprime_dirty
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
namespace {

/// What one look at the page cache tells.
using Residency = std::array<unsigned char, 512>;

constexpr bool is_in(unsigned char page) noexcept { return (page & 1) != 0; }

}  // namespace

StoreWindow::StoreWindow(Mapped memory)
    : memory_(std::move(memory)), traps_(memory_.data(), memory_.size(), *this) {}

bool StoreWindow::is_resident(std::uint64_t at, std::size_t size) const noexcept {
  Residency pages{};
  const std::uint64_t end = at + size;
  for (std::uint64_t first = at / kPageBytes * kPageBytes; first < end;) {
    const std::uint64_t part = std::min<std::uint64_t>(end - first, pages.size() * kPageBytes);
    if (::mincore(memory_.data() + first, part, pages.data()) != 0) return false;
    const std::uint64_t count = (part + kPageBytes - 1) / kPageBytes;
    if (!std::all_of(pages.begin(), pages.begin() + static_cast<std::ptrdiff_t>(count), is_in)) return false;
    first += part;
  }
  return true;
}

bool StoreWindow::store(std::uint64_t at, std::span<const std::byte> from) noexcept {
  return aprime_store(memory_.data() + at, from.data(), from.size());
}

std::uint64_t StoreWindow::dirty_again(std::uint64_t at, std::size_t size) noexcept {
  Residency pages{};
  const std::uint64_t end = at + size;
  while (at < end) {
    const std::uint64_t part = std::min<std::uint64_t>(end - at, pages.size() * kPageBytes);
    // Where the kernel does not tell, none is left out.
    if (::mincore(memory_.data() + at, part, pages.data()) != 0) pages.fill(1);
    for (std::uint64_t page = 0; page * kPageBytes < part; ++page)
      if (is_in(pages[page]) && !aprime_dirty(memory_.data() + at + page * kPageBytes))
        return at + page * kPageBytes;
    at += part;
  }
  return end;
}

TrapTarget::Answer StoreWindow::on_trap(const Trap& trap) noexcept {
  auto& registers = static_cast<ucontext_t*>(trap.context)->uc_mcontext.gregs;
  const auto at = static_cast<std::uintptr_t>(registers[REG_RIP]);
  const auto begin = reinterpret_cast<std::uintptr_t>(&aprime_dirty);
  const auto refused = reinterpret_cast<std::uintptr_t>(&aprime_store_refused);
  if (at < begin || at >= refused) return Answer::not_mine;
  registers[REG_RIP] = static_cast<greg_t>(refused);
  return Answer::resolved;
}

}  // namespace aprime::os
