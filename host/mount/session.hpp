#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "aprime/mount.hpp"
#include "host/mount/fuse.hpp"

namespace aprime::mount {

/// File system type of our mounts, as /proc/self/mountinfo tells it.
inline constexpr const char* kFileSystemType = "fuse.aprime";

/// The name with which `create` is asked for a file that shall have none (O_TMPFILE): no entry has it.
inline constexpr std::string_view kUnnamed = "/";

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

  /// It is unmounted already: its end shall only close the connection, and touch nothing that may be mounted
  /// at its place since. \pre nobody serves the session any more
  void was_unmounted() noexcept;

  fuse_session& fuse() noexcept { return *session_; }

 private:
  fuse_session* session_ = nullptr;
};

}  // namespace aprime::mount
