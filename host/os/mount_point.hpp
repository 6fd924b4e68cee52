#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace aprime::os {

/// What is mounted at a path.
enum class MountedThere : std::uint8_t {
  nothing,      ///< it is no mount point
  ours,         ///< a mount of aprime that is served
  ours_stale,   ///< a mount of aprime whose daemon is gone: every access fails with ENOTCONN
  other,        ///< another file system
  other_stale,  ///< the same, of a FUSE daemon that is gone
};

/// The absolute path of a directory without symbolic links, also of a stale mount point (which realpath
/// cannot look at).
/// \throws Error(cannot_open) if it is missing or no directory
std::string canonical_path(const std::string& path);

/// Looks at what is mounted at exactly this path, the topmost if there are several. `type` is the file system
/// type that is ours.
MountedThere mounted_at(const std::string& canonical, std::string_view type);

/// A mounted file system, as the system lists it.
struct MountEntry {
  /// st_dev of what is on it.
  std::uint64_t device = 0;
  std::string type;
  std::string point;
  /// The directory of the file system that is seen there: "/", unless a part of it is mounted (bind mount).
  std::string root;
  /// Who mounted it; told of FUSE file systems.
  std::optional<uid_t> user;
};

/// The absolute path without symbolic links of anything, as far as it can be looked at: what is missing, or
/// behind a stale mount point, keeps its names.
std::string resolved_path(const std::string& path);
/// The file system that a resolved path lies on, going by names: nothing is asked of the file system itself,
/// whose daemon may be gone or may hang. Empty if the system does not tell.
std::optional<MountEntry> mount_of(const std::string& resolved);

/// How to unmount.
enum class Detach : std::uint8_t {
  when_idle,  ///< fail with EBUSY while a program has a file open or its working directory there
  now,        ///< at once for new accesses; open files go on to work as long as they are served
};
/// Unmounts what is mounted there: as root by the system call, as an ordinary user by fusermount3, which may
/// unmount the user's own mounts. Returns 0 or an errno (EPERM whenever fusermount3 fails, which does not say
/// why).
int unmount_at(const std::string& canonical, Detach how);
/// Ends the connection between the kernel and the daemon of a FUSE mount, which may hang: all that is waited
/// for there fails. For root, and for who mounted. Asks nothing of the mount, which may be gone afterwards,
/// or be there and stale. Returns 0 or an errno (ENOENT: the system has no file system of FUSE connections,
/// /sys/fs/fuse/connections).
int abort_connection(const MountEntry& mount);

}  // namespace aprime::os
