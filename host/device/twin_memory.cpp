#include "host/device/twin_memory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstring>

#include "aprime/error.hpp"
#include "host/os/failure.hpp"
#include "host/os/syscalls.hpp"

namespace aprime::device {

namespace {

namespace sys = os::sys;

std::byte* map(std::byte* address, std::size_t size, int protection, int flags, int fd) {
  void* const base = sys::mmap(address, size, protection, flags | MAP_NORESERVE, fd, 0);
  if (base == MAP_FAILED) throw os::failure(Errc::resources, "cannot map device memory", errno);
  return static_cast<std::byte*>(base);
}

void keep_from_child(std::byte* base, std::size_t size) {
  if (sys::madvise(base, size, MADV_DONTFORK) != 0 || sys::madvise(base, size, MADV_DONTDUMP) != 0) {
    throw os::failure(Errc::resources, "cannot keep device memory out of fork() and core dumps", errno);
  }
}

/// The memory is a file for the kernel: made larger than a program's files may be, it would end the program
/// by SIGXFSZ.
void require_file_size(std::size_t size) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || size <= limit.rlim_cur)
    return;
  throw Error(Errc::resources,
              fmt::format("cannot make {} bytes of device memory: files of this process may have {} bytes "
                          "(ulimit -f)",
                          size, limit.rlim_cur));
}

}  // namespace

TwinMemory::TwinMemory(std::size_t size) : descriptor_(sys::memfd_create("aprime-device", MFD_CLOEXEC)) {
  if (!descriptor_) throw os::failure(Errc::resources, "cannot make device memory", errno);
  require_file_size(size);
  if (sys::ftruncate(descriptor_.get(), static_cast<std::int64_t>(size)) != 0) {
    throw os::failure(Errc::resources, "cannot set the size of device memory", errno);
  }
  alias_ = os::Mapped(map(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_.get()), size);
  keep_from_child(alias_.data(), size);
}

TwinMemory::View TwinMemory::map_view(std::size_t guard_bytes) {
  const std::size_t size = alias_.size();
  // The guards and the place between them are taken together, then the place is filled in: so nothing else
  // can come to lie next to the view.
  std::byte* const base = map(nullptr, size + 2 * guard_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  const auto part = [](std::byte* at, std::size_t bytes) {
    return bytes == 0 ? os::Mapped() : os::Mapped(at, bytes);
  };
  View view{part(base, guard_bytes), part(base + guard_bytes, size),
            part(base + guard_bytes + size, guard_bytes)};
  map(view.memory.data(), size, PROT_NONE, MAP_SHARED | MAP_FIXED, descriptor_.get());
  keep_from_child(base, size + 2 * guard_bytes);
  return view;
}

void TwinMemory::clear(std::size_t at, std::size_t size) noexcept {
  const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  const auto first = static_cast<std::int64_t>(at);
  if (sys::fallocate(descriptor_.get(), mode, first, static_cast<std::int64_t>(size)) == 0) return;
  // Costs memory, but what is in it may not come back.
  std::memset(alias_.data() + at, 0, size);
}

}  // namespace aprime::device
