#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace aprime {

class MountCall;
struct MountStatus;

/// How to mount.
struct MountOptions {
  /// Let other users in, with their own rights. By default only the user who mounts gets in, not even root
  /// where that is somebody else. For ordinary users /etc/fuse.conf must say `user_allow_other`.
  bool allow_other = false;
  /// Serves calls that other processes of the same user make (see MountConnection), each in a thread of its
  /// own; what it throws is their answer. It must not end the mount. Called until the mount has ended, which
  /// waits for calls in work.
  std::function<void(MountCall&)> serve{};
};

namespace mount {
class Server;
}

/// A mount made by `Runtime::mount`, served by threads of this process until it is unmounted. A handle:
/// move-only. Members may be called by several threads at once, except moves.
class Mount {
 public:
  /// Of no mount: only to be assigned to.
  Mount() noexcept;
  explicit Mount(std::unique_ptr<mount::Server> server) noexcept;
  Mount(Mount&&) noexcept;
  Mount& operator=(Mount&&) noexcept;
  /// As `unmount`.
  ~Mount();

  /// Absolute, without symbolic links.
  const std::string& source() const noexcept;
  const std::string& mountpoint() const noexcept;

  /// What `mount_status` tells other processes.
  MountStatus status() const;

  /// Waits until it is no longer mounted: `unmount` was called, or somebody unmounted it from outside.
  void wait() const;
  /// Ends the mount: pages that programs have stored to by `mmap` until now are written to their files, then
  /// new accesses no longer get there and open files fail (ENOTCONN). Returns when no request is served any
  /// more, and what devices have of the runtime's files is copied home, as far as it can be: `Runtime::close`
  /// tells.
  void unmount() noexcept;

 private:
  std::unique_ptr<mount::Server> server_;
};

/// Whether this build of the library can mount.
bool can_mount() noexcept;

/// What to do about programs that use the mount.
enum class Unmount : std::uint8_t {
  /// Fail while a program has a file open or its working directory there.
  when_idle,
  /// Take it out of the tree at once.
  now,
  /// The same, and end what programs wait for there with an error. For a process that answers no more, or was
  /// killed and does not end because the kernel waits for its answer. What programs have stored by mmap, and
  /// it has not written, is lost.
  force,
};
/// Unmounts a mount of aprime from outside; also one whose process is gone. If that ends the mount, and it is
/// this user's, returns when what devices have of the runtime's files is copied home (not if forced).
/// \throws Error(cannot_open) that says what is there instead, what keeps it busy, or why it cannot be
/// forced; an Error of any kind if it is unmounted but something could not be copied home
void unmount(const std::string& mountpoint, Unmount how = Unmount::when_idle);

}  // namespace aprime
