#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>

#include "aprime/units.hpp"

namespace aprime::test {

/// Calls by which the library takes its steps: to give a page to a program or take it away, to fill a device
/// or copy its bytes home. A test program that has held_calls.cpp and is linked with `--wrap` for each of
/// them can stop a thread right before or after one; the library itself knows nothing of it.
enum class Call : std::uint8_t {
  request,     ///< the whole work on one request of the kernel's to the mount
  invalidate,  ///< pages are taken out of the kernel's cache and every mapping
  openat2,     ///< a name is looked up, or a file created
  pread,
  pwrite,    ///< and pwritev2
  ioctl,     ///< bytes and rights of the emulated device with page faults
  mprotect,  ///< rights of the CPU's pointers, and of the strict device
  ftruncate,
  fallocate,
  fdatasync,
  reply_bytes,
  reply_pages,
  reply_written,
  reply_attributes,
  reply_error,  ///< with none: done
  thread_end,   ///< of one that has served requests; there is only the moment before
  any,
};
enum class When : std::uint8_t { before, after };

/// A moment that a thread of this process comes by.
struct Moment {
  static constexpr int kAnybody = -1;
  /// A thread that serves no request of the kernel's.
  static constexpr int kNoRequest = 0;

  Call call;
  When when;
  /// In the file: calls elsewhere do not count. Those that have no offset of their own have that of the
  /// request that they are made for; those for none are everywhere.
  ByteRange range{ByteOffset{0}, ByteCount{std::uint64_t{1} << 62}};
  /// The kind of request (FUSE_READ, ...) that the thread is at work on.
  int on_behalf_of = kAnybody;
  /// It is the nth of its kind from now on; 0: none is, they are only counted.
  unsigned nth = 1;
  /// Which thread. One that has replied comes by the moment after it when the program is elsewhere already.
  pid_t thread = kAnybody;
};

/// Holds the thread that comes by a moment until it is let go.
class Hold {
 public:
  explicit Hold(const Moment& moment);
  /// Lets the thread go, or whoever would have come.
  ~Hold();
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

  /// Waits until a thread is held and returns its id. Ends the process, with a message, if none comes.
  pid_t wait() const;
  bool is_reached() const noexcept;
  void release() noexcept;
  /// How many came by a moment of this kind.
  unsigned count() const noexcept;

 private:
  unsigned slot_;
};

/// Waits until a thread sleeps in the kernel where no signal of ours wakes it, as those do that wait for a
/// page.
void wait_until_blocked(pid_t thread);
/// Waits until a thread sleeps where a signal wakes it, as those do that wait for a granule; or until
/// something else is so.
void wait_until_asleep(pid_t thread, const std::function<bool()>& or_else);

}  // namespace aprime::test
