#include "host/os/open_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "host/os/syscalls.hpp"

namespace aprime::os {

int OpenFile::read(off_t at, std::span<std::byte> into, std::size_t* got) const noexcept {
  for (*got = 0; *got < into.size();) {
    const ssize_t n =
        sys::pread(fd_.get(), into.data() + *got, into.size() - *got, at + static_cast<off_t>(*got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (n == 0) break;
    *got += static_cast<std::size_t>(n);
  }
  return 0;
}

int OpenFile::write(off_t at, std::span<const std::byte> from, int flags, std::size_t* put) const noexcept {
  for (*put = 0; *put < from.size();) {
    const std::span<const std::byte> rest = from.subspan(*put);
    const ssize_t n =
        sys::pwritev2(fd_.get(), rest.data(), rest.size(), at + static_cast<off_t>(*put), flags);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (n == 0) return EIO;
    *put += static_cast<std::size_t>(n);
  }
  return 0;
}

int OpenFile::append(std::span<const std::byte> from, int flags, std::size_t* put) const noexcept {
  return write(0, from, flags | RWF_APPEND, put);
}

int OpenFile::sync(bool data_only) const noexcept {
  // Never retried after EIO: the kernel has marked the pages clean, and a second call would report success.
  while ((data_only ? sys::fdatasync(fd_.get()) : sys::fsync(fd_.get())) != 0)
    if (errno != EINTR) return errno;
  return 0;
}

int OpenFile::end_privileges() const noexcept {
  struct ::stat s {};
  if (sys::fstat(fd_.get(), &s) != 0) return errno;
  // Without the right to execute, the bit of the group means something else.
  constexpr mode_t kOfGroup = S_ISGID | S_IXGRP;
  const mode_t ended = (s.st_mode & S_ISUID) | ((s.st_mode & kOfGroup) == kOfGroup ? S_ISGID : 0);
  if (ended == 0 || ::fchmod(fd_.get(), s.st_mode & 07777 & ~ended) == 0) return 0;
  return errno == EPERM ? 0 : errno;
}

int OpenFile::truncate(off_t size) const noexcept {
  while (sys::ftruncate(fd_.get(), size) != 0)
    if (errno != EINTR) return errno;
  return 0;
}

int OpenFile::flush() const noexcept {
  const int copy = sys::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return 0;  // no descriptor to spare: then only `sync` tells
  return ::close(copy) == 0 || errno == EINTR ? 0 : errno;
}

int OpenFile::allocate(int mode, off_t at, off_t size) const noexcept {
  while (sys::fallocate(fd_.get(), mode, at, size) != 0)
    if (errno != EINTR) return errno;
  return 0;
}

int OpenFile::seek(off_t at, int whence, off_t* found) const noexcept {
  *found = ::lseek(fd_.get(), at, whence);
  return *found < 0 ? errno : 0;
}

int OpenFile::copy_to(off_t at, const OpenFile& to, off_t to_at, std::size_t size,
                      std::size_t* copied) const noexcept {
  const ssize_t n = ::copy_file_range(fd_.get(), &at, to.fd_.get(), &to_at, size, 0);
  if (n < 0) return errno;
  *copied = static_cast<std::size_t>(n);
  return 0;
}

}  // namespace aprime::os
