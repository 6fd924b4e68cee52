#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "host/os/memory.hpp"
#include "host/os/trap.hpp"

namespace aprime::test {

inline std::byte load(const std::byte* p) { return *static_cast<const volatile std::byte*>(p); }
inline void store(std::byte* p, int value) {
  *static_cast<volatile std::byte*>(p) = static_cast<std::byte>(value);
}

/// Pages that are opened when they trap, or that answer something else.
struct Page final : os::TrapTarget {
  explicit Page(std::size_t pages = 1) : memory(os::Mapped::anonymous(pages * os::kPageBytes)) {
    ::mprotect(memory.data(), memory.size(), PROT_NONE);
  }
  Answer on_trap(const os::Trap& trap) noexcept override {
    traps.fetch_add(1);
    last_address.store(trap.address);
    last_write.store(trap.write);
    errno = ENOTTY;  // a handler makes system calls
    if (answer != Answer::resolved) return answer;
    const auto page = reinterpret_cast<std::uintptr_t>(trap.address) / os::kPageBytes * os::kPageBytes;
    ::mprotect(reinterpret_cast<void*>(page), os::kPageBytes,
               trap.write ? PROT_READ | PROT_WRITE : PROT_READ);
    return Answer::resolved;
  }

  os::Mapped memory;
  Answer answer = Answer::resolved;
  std::atomic<int> traps{0};
  std::atomic<std::byte*> last_address{nullptr};
  std::atomic<bool> last_write{false};
};

}  // namespace aprime::test
