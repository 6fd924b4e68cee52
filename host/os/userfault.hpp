#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "aprime/error.hpp"
#include "host/os/file.hpp"
#include "host/os/memory.hpp"

namespace aprime::os {

/// Anonymous memory under userfaultfd, MISSING | WP, faults delivered as SIGBUS on the faulting thread
/// (UFFD_FEATURE_SIGBUS), user-mode faults only, so that an ordinary user may make one.
///
/// The pages stay small ones, so that a right can be taken from each. Not inherited by fork().
///
/// All operations are page-granular, thread-safe, allocate nothing, and handle the races that the kernel
/// reports: EEXIST (another thread was faster: benign), EAGAIN (the address space is changing: retry from
/// where it stopped).
class UserfaultMemory {
 public:
  /// Empty when the kernel can do it, else the reason in words (for `aprime info`), found by trying once.
  static std::string why_unavailable();

  /// \throws Error(resources)
  /// \pre size > 0; rounded up to whole pages
  explicit UserfaultMemory(std::size_t size);
  ~UserfaultMemory() = default;
  UserfaultMemory(const UserfaultMemory&) = delete;
  UserfaultMemory& operator=(const UserfaultMemory&) = delete;

  std::byte* data() const noexcept { return memory_.data(); }
  std::size_t size() const noexcept { return memory_.size(); }

  /// Atomically makes [at, at + from.size()) present with these bytes; read-only if `write_protected`. The
  /// kernel reads `from`; if it cannot (a file mapping whose file shrank) the status is out_of_range and the
  /// bytes before
  /// `*done` are in place. Pages that are present already are left as they are and count as done.
  Status copy(std::byte* at, std::span<const std::byte> from, bool write_protected,
              std::size_t* done) noexcept;
  /// Makes the range present and zero, writable; pages that are present already are left as they are. Memory
  /// is used for pages that are stored to only.
  Status zero(std::byte* at, std::size_t size, std::size_t* done) noexcept;
  /// Takes (`protect` = true) or gives the write right of present pages; missing ones stay missing. When it
  /// returns, no thread can still store.
  Status write_protect(std::byte* at, std::size_t size, bool protect) noexcept;
  /// Makes the range missing again and frees its memory; when it returns, no thread can still use it.
  Status drop(std::byte* at, std::size_t size) noexcept;

 private:
  Mapped memory_;
  Descriptor fd_;  // closed first: a fault on what is left of the memory is then an ordinary one
};

}  // namespace aprime::os
