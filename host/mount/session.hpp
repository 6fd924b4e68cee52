#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "aprime/mount.hpp"
#include "host/mount/fuse.hpp"
#include "host/os/memory.hpp"
#include "host/os/page_pipe.hpp"

namespace aprime::mount {

/// File system type of our mounts, as /proc/self/mountinfo tells it.
inline constexpr const char* kFileSystemType = "fuse.aprime";

/// The name with which `create` is asked for a file that shall have none (O_TMPFILE): no entry has it.
inline constexpr std::string_view kUnnamed = "/";

/// The most bytes that the kernel asks for, or sends, in one request.
inline constexpr std::size_t kTransferMax = std::size_t{1} << 20;

/// Memory for one request at a time, of any size, and for the bytes of its answer. The bytes of a write,
/// which come behind its headers, begin with a page, so that the kernel can copy whole pages. For one thread.
class RequestBuffer {
 public:
  /// `huge`: in a page of 2 MiB, if there is one, which saves the kernel the search for small ones.
  /// \throws Error(resources)
  explicit RequestBuffer(bool huge);

  /// Receives a request if there is one, as fuse_session_receive_buf.
  int receive(fuse_session& session) noexcept { return ::fuse_session_receive_buf(&session, &request_); }
  /// Serves what was received. True if its operation said that the next request is on its way.
  bool process(fuse_session& session) noexcept;
  /// Said by an operation that knows.
  static void expect_more() noexcept;
  /// Whether the write that this thread is processing is by somebody who must not leave set-user-id bits.
  static bool ends_privileges() noexcept;
  /// For the answer to what this thread is processing, if that has no bytes with it.
  struct Answer {
    /// kTransferMax of them.
    std::span<std::byte> bytes;
    /// Empty.
    os::PagePipe& pages;
  };
  static Answer for_answer() noexcept;

 private:
  os::Mapped memory_;
  os::PagePipe pages_;
  fuse_buf request_{};
};

/// A FUSE session that is mounted. Talks to the kernel through libfuse, with what libfuse does not know yet
/// added to its messages.
class Session {
 public:
  /// Mounts. `operations` is copied; its functions get `userdata`, which must outlive the session.
  /// \throws Error(cannot_open | resources) with the reason that libfuse gives
  Session(const std::string& source, const std::string& mountpoint, const MountOptions& options,
          const fuse_lowlevel_ops& operations, void* userdata);
  /// Closes the connection: whoever has a file open gets ENOTCONN. Unmounts, if it is mounted still.
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Has the kernel forget those that nobody uses: no file of theirs is open, and no name of theirs in use.
  /// False if it cannot be told so, as before Linux 6.18. \throws std::bad_alloc
  bool prune(std::span<const fuse_ino_t> inodes);

  /// Has the kernel forget that a directory has no such entry. The directory may be gone. Waits for requests
  /// about it. \throws std::bad_alloc
  void forget_missing(fuse_ino_t directory, std::string_view name);

  /// Whether the kernel has ended it: it was unmounted and is used by nobody, or its connection was ended.
  /// What is mounted at its place by then is something else.
  bool has_ended() const noexcept;
  /// It is unmounted already: its end shall only close the connection, and touch nothing that may be mounted
  /// at its place since. \pre nobody serves the session any more
  void was_unmounted() noexcept;

  fuse_session& fuse() noexcept { return *session_; }

 private:
  fuse_session* session_ = nullptr;
};

}  // namespace aprime::mount
