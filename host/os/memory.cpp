#include "host/os/memory.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cassert>
#include <cerrno>

#include "host/os/failure.hpp"
#include "host/os/syscalls.hpp"

namespace aprime::os {
namespace {

constexpr std::size_t round_up(std::size_t n, std::size_t to) noexcept { return (n + to - 1) / to * to; }

}  // namespace

Mapped::~Mapped() {
  if (base_ == nullptr) return;
  [[maybe_unused]] const int rc = ::munmap(base_, size_);
  assert(rc == 0);
}

Status Mapped::clear() noexcept {
  if (sys::madvise(base_, size_, MADV_DONTNEED) == 0) return {};
  return {Errc::resources, errno, {}};
}

Mapped Mapped::anonymous(std::size_t size, bool huge_aligned) {
  assert(size > 0);
  size = round_up(size, kPageBytes);
  const std::size_t slack = huge_aligned ? kHugeBytes : 0;
  void* raw = sys::mmap(nullptr, size + slack, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) {
    throw failure(
        Errc::resources,
        fmt::format("cannot reserve {} bytes of address space (raise vm.max_map_count or ulimit -v?)",
                    size + slack),
        errno);
  }
  auto* base = static_cast<std::byte*>(raw);
  if (huge_aligned) {
    const auto address = reinterpret_cast<std::uintptr_t>(base);
    const std::size_t head = round_up(address, kHugeBytes) - address;
    if (head > 0) ::munmap(base, head);
    if (slack > head) ::munmap(base + head + size, slack - head);
    base += head;
  }
  Mapped result(base, size);
  if (sys::madvise(base, size, MADV_DONTFORK) != 0 || sys::madvise(base, size, MADV_DONTDUMP) != 0) {
    throw failure(Errc::resources, "cannot keep memory out of fork() and core dumps", errno);
  }
  return result;
}

}  // namespace aprime::os
