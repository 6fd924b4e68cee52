#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "aprime/access.hpp"
#include "aprime/error.hpp"
#include "aprime/units.hpp"
#include "host/os/memory.hpp"

namespace aprime::os {

class StoreWindow;

/// Owns a file descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) noexcept : fd_(fd) {}
  Descriptor(Descriptor&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  ~Descriptor();
  int get() const noexcept { return fd_; }
  /// Leaves it to the caller to close.
  int release() noexcept { return std::exchange(fd_, -1); }
  explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

/// Names a file independently of its path: two paths to one inode give equal identities.
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  bool operator==(const FileIdentity&) const = default;
};

/// The backing file: home. All I/O goes through the page cache by way of descriptors (but for `store`, which
/// takes what a mapping refuses to one), so ENOSPC and EIO are reported where they happen and a file that
/// shrinks cannot kill the process.
///
/// Thread-safe. The `noexcept` operations retry EINTR and short transfers, allocate nothing, and report the
/// offset at which they failed.
class File {
 public:
  /// Opens a regular file. \throws Error(cannot_open) that says what is there instead (missing, directory,
  /// fifo, no permission, ...) and what to do.
  static File open(const std::string& path, Access access);
  /// The same by one path, for a file that is known by another name (`path()`, and in messages).
  static File open_as(const std::string& name, const std::string& path, Access access);
  File(File&&) noexcept;
  ~File();

  /// The path it was opened by; the file may have been renamed since.
  const std::string& path() const noexcept;
  FileIdentity identity() const noexcept;
  /// The absolute path that leads to it now; empty if it has no name any more, or the system does not tell.
  std::string current_path() const;
  /// For whoever moves bytes himself. Stays open as long as the file.
  int descriptor() const noexcept;
  /// Whether the file was opened for writing (yet).
  Access access() const noexcept;
  /// Opens the same file for writing too; a no-op if it is already. `path` is for a system without /proc, and
  /// for the message. \throws Error(cannot_open), also when without /proc `path` leads to another file by now
  void make_writable(const std::string& path);
  /// The same for somebody who has it open for writing, by `fd`, and need not be allowed to open it any more:
  /// that serves if it is open for reading too. -1 for nobody. Returns 0 or an errno. \throws std::bad_alloc
  int make_writable(int fd);

  /// Size now; another process may change it at any time. On failure the status is not ok and the size 0.
  struct SizeResult {
    Status status;
    ByteCount size;
  };
  SizeResult size() const noexcept;

  /// Reads [at, at + into.size()). Bytes beyond the end of the file are zeros: a short read at the end never
  /// leaks what was in `into`.
  Status read(ByteOffset at, std::span<std::byte> into) noexcept;
  /// Writes the part of [at, at + from.size()) that lies below the end of the file, so that it never grows
  /// the file. (If another process truncates between the look at the size and the write, the write wins: a
  /// window of microseconds that POSIX gives no way to close.) Fails with access_denied on a file that is not
  /// open for writing.
  Status write(ByteOffset at, std::span<const std::byte> from) noexcept;
  /// Writes as `write` does, and so that several threads can do so at once, to different parts: the kernel
  /// lets one thread at a time into a file's write(2) (8 GB/s with two threads as with one, where two that
  /// store move 15; with twelve 8, and 64). What is in the page cache is stored to a mapping; the rest, and
  /// what cannot be stored, is written. Of use for large parts. May allocate.
  Status store(ByteOffset at, std::span<const std::byte> from) noexcept;
  /// The same as `write` with O_DIRECT, where the file system can: `at`, the buffer and the size must be
  /// multiples of `direct_alignment()`. Falls back to buffered I/O where O_DIRECT is refused; so does, for
  /// those bytes, the end of a file that ends within a block.
  Status read_direct(ByteOffset at, std::span<std::byte> into) noexcept;
  struct DirectResult {
    Status status;
    /// Some of it went to the page cache. It is not synced here: the kernel tells one fdatasync alone of what
    /// failed, and that must be one that sees to all bytes of the file.
    bool needs_sync = false;
  };
  DirectResult write_direct(ByteOffset at, std::span<const std::byte> from) noexcept;
  ByteCount direct_alignment() const noexcept;
  bool direct_supported() const noexcept;

  /// Starts writing dirty page-cache pages of the range to disk without waiting (sync_file_range); best
  /// effort.
  void start_writeback(ByteRange range) noexcept;
  /// fdatasync: everything written before is durable.
  Status sync() noexcept;
  /// After a `sync` that failed: has the kernel, which calls the pages clean that it could not write, write
  /// what it has of the range in the page cache once more. Loses nothing that others store, write, or write
  /// directly meanwhile. May allocate. \pre `range.first` is page-aligned
  Status dirty_again(ByteRange range) noexcept;
  /// ftruncate. Fails with no_space (also if larger than the file system or the process allows) / io /
  /// invalid_argument / access_denied (not open for writing, or made immutable).
  Status truncate(ByteCount size) noexcept;
  /// Deallocates a range that then reads as zeros (FALLOC_FL_PUNCH_HOLE | KEEP_SIZE); writes zeros where the
  /// file system has no holes.
  Status punch(ByteRange range) noexcept;
  /// Says that it was changed now, as a write to it would. Best effort.
  void touch() noexcept;
  /// posix_fadvise for the range; readahead of the alias as a whole. Best effort.
  void advise(ByteRange range, Advice advice) noexcept;

  /// A private read-only window on home for the kernel to copy from (never for our own loads: those could
  /// SIGBUS). Covers at least [0, size at open), or is empty where the file is, or where it cannot be mapped.
  /// Grows by `extend_alias`; old addresses stay valid.
  std::span<const std::byte> alias() const noexcept;
  /// Makes the alias cover [0, size); best effort: look at what `alias` covers.
  void extend_alias(ByteCount size) noexcept;

  /// Maps `range` of the file shared at an address of the kernel's choosing, readable, and writable if
  /// `access` says so; not inherited by fork().
  /// \pre `range.first` is page-aligned, `range` not empty
  /// \throws Error(cannot_open: no mmap on this file system | resources: too many areas, no memory)
  Mapped map_shared(ByteRange range, Access access);

 private:
  struct State;
  /// Calls `put(fd, bytes)` for those of the bytes that lie below the end, which stays where it is meanwhile.
  template <class Put>
  Status write_below_end(ByteOffset at, std::span<const std::byte> from, const Put& put) noexcept;
  bool store_resident(ByteOffset at, std::span<const std::byte> from) noexcept;
  Status dirty_part(ByteRange part) noexcept;
  Status rewrite(ByteRange part) noexcept;
  Status why_refused(ByteOffset page) noexcept;
  /// One that reaches so far; null if there can be none.
  StoreWindow* window_up_to(std::uint64_t end) noexcept;
  explicit File(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace aprime::os
