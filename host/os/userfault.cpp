#include "host/os/userfault.hpp"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cassert>
#include <cerrno>
#include <cstdint>

#include "host/os/failure.hpp"
#include "host/os/syscalls.hpp"

namespace aprime::os {
namespace {

std::uint64_t address_of(const std::byte* p) noexcept { return reinterpret_cast<std::uintptr_t>(p); }

[[maybe_unused]] bool is_whole_pages(const std::byte* at, std::size_t size) noexcept {
  return address_of(at) % kPageBytes == 0 && size % kPageBytes == 0;
}

const char* hint_for(int system_error) noexcept {
  switch (system_error) {
    case ENOSYS: return "userfaultfd: this kernel was built without it (CONFIG_USERFAULTFD)";
    case EPERM: return "userfaultfd: forbidden to this process, as containers do by their seccomp profile";
    case EINVAL: return "userfaultfd: user-mode-only faults need Linux 5.11 or later";
    default: return "userfaultfd";
  }
}

Descriptor open_userfault() {
  Descriptor fd(sys::userfaultfd(O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));
  if (!fd) throw failure(Errc::resources, hint_for(errno), errno);
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_PAGEFAULT_FLAG_WP;
  if (sys::ioctl(fd.get(), UFFDIO_API, &api) != 0) {
    throw failure(Errc::resources, "userfaultfd: this kernel cannot signal faults or write-protect pages",
                  errno);
  }
  return fd;
}

void register_memory(const Descriptor& fd, const Mapped& memory) {
  // A huge page would have to be split to take a right from part of it, and khugepaged to collapse pages of
  // different rights. Fails only where the kernel knows no huge pages.
  (void)sys::madvise(memory.data(), memory.size(), MADV_NOHUGEPAGE);
  uffdio_register request{};
  request.range = {address_of(memory.data()), memory.size()};
  request.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP;
  if (sys::ioctl(fd.get(), UFFDIO_REGISTER, &request) != 0) {
    throw failure(Errc::resources, "userfaultfd: cannot register anonymous memory", errno);
  }
  constexpr std::uint64_t kNeeded = std::uint64_t{1} << _UFFDIO_COPY | std::uint64_t{1} << _UFFDIO_ZEROPAGE |
                                    std::uint64_t{1} << _UFFDIO_WRITEPROTECT;
  if ((request.ioctls & kNeeded) != kNeeded) {
    throw Error(Errc::resources,
                "userfaultfd: this kernel cannot write-protect anonymous memory (Linux 5.7 can)");
  }
}

/// Runs a request that makes pages present, from `*done` on, until all of [0, size) is done or an error stops
/// it. `attempt(offset)` returns what the kernel reports: a number of bytes, or minus an errno.
template <class Attempt>
Status make_present(std::size_t size, std::size_t* done, Attempt attempt) noexcept {
  *done = 0;
  while (*done < size) {
    const std::int64_t result = attempt(*done);
    if (result > 0) {
      *done += static_cast<std::size_t>(result);
    } else if (result == -EEXIST) {
      *done += kPageBytes;  // another thread was faster
    } else if (result == -EFAULT) {
      return {Errc::out_of_range, EFAULT, {}};
    } else if (result != -EAGAIN) {
      // ENOENT, ESRCH: the memory or the process is going away. EAGAIN without progress: somebody changes the
      // address space, at once over.
      return {Errc::resources, static_cast<int>(-result), {}};
    }
  }
  return {};
}

/// `progress` is what the kernel stored in the request: bytes done, or minus an errno. It stores nothing when
/// it refuses the request as such.
std::int64_t outcome(int rc, std::int64_t progress) noexcept {
  return rc == 0 || progress != 0 ? progress : -static_cast<std::int64_t>(errno);
}

}  // namespace

std::string UserfaultMemory::why_unavailable() {
  try {
    const UserfaultMemory once(kPageBytes);
    return {};
  } catch (const Error& e) {
    return e.what();
  }
}

UserfaultMemory::UserfaultMemory(std::size_t size)
    : memory_(Mapped::anonymous(size, true)), fd_(open_userfault()) {
  register_memory(fd_, memory_);
}

Status UserfaultMemory::copy(std::byte* at, std::span<const std::byte> from, bool write_protected,
                             std::size_t* done) noexcept {
  assert(is_whole_pages(at, from.size()));
  return make_present(from.size(), done, [&](std::size_t offset) {
    uffdio_copy request{};
    request.dst = address_of(at) + offset;
    request.src = address_of(from.data()) + offset;
    request.len = from.size() - offset;
    // Nobody sleeps in a fault: they come as signals.
    request.mode = UFFDIO_COPY_MODE_DONTWAKE | (write_protected ? UFFDIO_COPY_MODE_WP : 0);
    const int rc = sys::ioctl(fd_.get(), UFFDIO_COPY, &request);
    return outcome(rc, request.copy);
  });
}

Status UserfaultMemory::zero(std::byte* at, std::size_t size, std::size_t* done) noexcept {
  assert(is_whole_pages(at, size));
  return make_present(size, done, [&](std::size_t offset) {
    // The shared zero page, replaced at the first store without a fault that we would see; it can be
    // write-protected like any other.
    uffdio_zeropage request{};
    request.range = {address_of(at) + offset, size - offset};
    request.mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE;
    const int rc = sys::ioctl(fd_.get(), UFFDIO_ZEROPAGE, &request);
    return outcome(rc, request.zeropage);
  });
}

Status UserfaultMemory::write_protect(std::byte* at, std::size_t size, bool protect) noexcept {
  assert(is_whole_pages(at, size));
  uffdio_writeprotect request{};
  request.range = {address_of(at), size};
  request.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
  while (sys::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &request) != 0) {
    if (errno != EAGAIN) return {Errc::resources, errno, {}};
  }
  return {};
}

Status UserfaultMemory::drop(std::byte* at, std::size_t size) noexcept {
  assert(is_whole_pages(at, size));
  return discard_pages(at, size);
}

}  // namespace aprime::os
