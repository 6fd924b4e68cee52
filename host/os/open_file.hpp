#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>

#include "host/os/file.hpp"

namespace aprime::os {

/// A regular file opened on behalf of somebody else, with the rights of that opening. Transfers go on after
/// EINTR and after short ones. Every operation returns 0 or the errno of the system call that failed, and is
/// thread-safe.
class OpenFile {
 public:
  explicit OpenFile(Descriptor fd) noexcept : fd_(std::move(fd)) {}
  /// For whoever moves bytes himself. Stays open as long as the file.
  int descriptor() const noexcept { return fd_.get(); }

  /// Reads until `into` is full or the file ends; `*got` is how far it came, also on failure.
  [[nodiscard]] int read(off_t at, std::span<std::byte> into, std::size_t* got) const noexcept;
  /// Writes all of `from` unless it fails; `*put` is how far it came. `flags`: as for pwritev2, RWF_DSYNC or
  /// RWF_SYNC.
  [[nodiscard]] int write(off_t at, std::span<const std::byte> from, int flags,
                          std::size_t* put) const noexcept;
  /// Writes where the file ends at that moment.
  [[nodiscard]] int append(std::span<const std::byte> from, int flags, std::size_t* put) const noexcept;
  [[nodiscard]] int sync(bool data_only) const noexcept;
  /// Clears the set-user-id bit, and the set-group-id bit of a program, where this process may.
  [[nodiscard]] int end_privileges() const noexcept;
  [[nodiscard]] int truncate(off_t size) const noexcept;
  /// What close(2) would report, without closing.
  [[nodiscard]] int flush() const noexcept;
  /// `mode` as for fallocate.
  [[nodiscard]] int allocate(int mode, off_t at, off_t size) const noexcept;
  /// SEEK_DATA and SEEK_HOLE.
  [[nodiscard]] int seek(off_t at, int whence, off_t* found) const noexcept;
  /// Copies up to `size` bytes within the kernel; `*copied` may be less.
  [[nodiscard]] int copy_to(off_t at, const OpenFile& to, off_t to_at, std::size_t size,
                            std::size_t* copied) const noexcept;

 private:
  Descriptor fd_;
};

}  // namespace aprime::os
