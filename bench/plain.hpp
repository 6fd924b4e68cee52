#pragma once

#include <signal.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "aprime/units.hpp"

// What the floors are made of: plain system calls, nothing of aprime.

namespace aprime::bench {

inline constexpr std::size_t kPage = 4096;

/// Seconds since some instant.
inline double now() noexcept {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Throws std::system_error with errno unless `ok`.
void check(bool ok, const char* what);

/// A load that the compiler keeps.
inline void touch(const std::byte* at) noexcept {
  static_cast<void>(*static_cast<const volatile std::byte*>(at));
}
/// A store that the compiler keeps.
inline void store(std::byte* at, std::byte value) noexcept { *static_cast<volatile std::byte*>(at) = value; }

/// An unnamed file on the disk that TMPDIR names (default: /var/tmp), gone when the program is.
class PlainFile {
 public:
  /// Of `size` bytes, all of them a hole, or (`dense`) written, durable and in the page cache.
  PlainFile(ByteCount size, bool dense);
  ~PlainFile();
  PlainFile(const PlainFile&) = delete;
  PlainFile& operator=(const PlainFile&) = delete;

  int fd() const noexcept { return fd_; }
  ByteCount size() const noexcept { return size_; }
  /// A path to open it once more.
  std::string path() const;
  void sync() const;

 private:
  int fd_;
  ByteCount size_;
};

/// A range of memory, unmapped at the end.
class PlainMemory {
 public:
  /// Zeroed, private, in pages of 4 KiB; present if `populate`.
  static PlainMemory anonymous(ByteCount size, bool populate = false);
  /// The whole file, shared.
  static PlainMemory of(const PlainFile& file, int protection);
  PlainMemory(std::byte* base, std::size_t size) noexcept : base_(base), size_(size) {}
  ~PlainMemory();
  PlainMemory(PlainMemory&& o) noexcept : base_(std::exchange(o.base_, nullptr)), size_(o.size_) {}
  PlainMemory& operator=(PlainMemory&&) = delete;

  std::byte* data() const noexcept { return base_; }
  std::size_t size() const noexcept { return size_; }

 private:
  std::byte* base_;
  std::size_t size_;
};

/// Anonymous memory whose faults come as SIGBUS to the faulting thread (userfaultfd, missing and
/// write-protect).
class BareUserfault {
 public:
  explicit BareUserfault(ByteCount size);
  ~BareUserfault();
  BareUserfault(const BareUserfault&) = delete;
  BareUserfault& operator=(const BareUserfault&) = delete;

  std::byte* data() const noexcept { return memory_.data(); }
  /// Async-signal-safe.
  void copy_protected(std::byte* to, const std::byte* from, std::size_t size) const noexcept;
  void unprotect(std::byte* at, std::size_t size) const noexcept;

 private:
  PlainMemory memory_;
  int fd_;
};

/// Another handler for one signal, for a scope.
class SignalScope {
 public:
  using Handler = void (*)(int, siginfo_t*, void*);
  SignalScope(int signal, Handler handler);
  ~SignalScope();
  SignalScope(const SignalScope&) = delete;
  SignalScope& operator=(const SignalScope&) = delete;

 private:
  int signal_;
  struct sigaction before_ {};
};

/// Gives a file content, durable and in the page cache. Written in large blocks, so that its pages lie
/// together there as those of a file do that was read from the disk.
void write_content(int fd, ByteCount size);
void write_all(int fd, std::uint64_t at, std::span<const std::byte> from);
void read_all(int fd, std::uint64_t at, std::span<std::byte> into);

}  // namespace aprime::bench
