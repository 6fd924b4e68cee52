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

Status Mapped::clear() noexcept { return discard_pages(base_, size_); }

Status discard_pages(std::byte* at, std::size_t size) noexcept {
  constexpr int kDontNeedLocked = 24;  // MADV_DONTNEED_LOCKED, Linux 5.18; unknown to older headers
  int advice = MADV_DONTNEED;
  while (sys::madvise(at, size, advice) != 0) {
    if (errno == EINVAL && advice == MADV_DONTNEED)
      advice = kDontNeedLocked;
    else if (errno != EAGAIN && errno != EINTR)
      return {Errc::resources, errno, {}};
  }
  return {};
}

Mapped Mapped::reserved(std::size_t size) {
  assert(size > 0);
  size = round_up(size, kPageBytes);
  // Without rights at first: in a program that locks its future memory (mlockall(MCL_FUTURE)) the kernel
  // would make all of it present at once.
  void* const raw = sys::mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) {
    throw failure(
        Errc::resources,
        fmt::format("cannot reserve {} bytes of address space (raise vm.max_map_count or ulimit -v?)", size),
        errno);
  }
  Mapped result(static_cast<std::byte*>(raw), size);
  if (::munlock(raw, size) != 0 || sys::mprotect(raw, size, PROT_READ | PROT_WRITE) != 0)
    throw failure(Errc::resources, fmt::format("cannot use {} bytes of reserved address space", size), errno);
  return result;
}

Mapped Mapped::anonymous(std::size_t size, bool huge_aligned) {
  size = round_up(size, kPageBytes);
  const std::size_t slack = huge_aligned ? kHugeBytes : 0;
  Mapped result = reserved(size + slack);
  if (huge_aligned) {
    std::byte* const base = result.base_;
    const auto address = reinterpret_cast<std::uintptr_t>(base);
    const std::size_t head = round_up(address, kHugeBytes) - address;
    if (head > 0) ::munmap(base, head);
    if (slack > head) ::munmap(base + head + size, slack - head);
    result.base_ += head;
    result.size_ = size;
  }
  if (sys::madvise(result.base_, size, MADV_DONTFORK) != 0 ||
      sys::madvise(result.base_, size, MADV_DONTDUMP) != 0) {
    throw failure(Errc::resources, "cannot keep memory out of fork() and core dumps", errno);
  }
  return result;
}

}  // namespace aprime::os
