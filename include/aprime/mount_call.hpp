#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "aprime/access.hpp"
#include "aprime/mapping.hpp"

// How programs talk to the process that serves a mount. The library answers mount_status() and unmount();
// calls of all types but "status" and "unmount" are the program's own (MountOptions::serve): `aprime mount`
// runs workloads that way.

namespace aprime {

/// What it is, in UTF-8, and a JSON object that says more. Strings in it hold any bytes if each byte is
/// written as the character of that number, as `json_text` does.
struct MountMessage {
  std::string type;
  std::string body = "{}";
};

/// Any bytes as text that JSON can hold (each byte becomes the character of that number, in UTF-8), and back.
/// \throws Error(invalid_argument) from `bytes_of_json_text` for a text that no bytes make
std::string json_text(const std::string& bytes);
std::string bytes_of_json_text(const std::string& text);

/// The server's side of a call that another process of the same user makes. Used by the thread it was given
/// to.
class MountCall {
 public:
  virtual ~MountCall() = default;

  virtual const MountMessage& request() const noexcept = 0;
  /// See Mount.
  virtual const std::string& source() const noexcept = 0;
  virtual const std::string& mountpoint() const noexcept = 0;
  /// As `Runtime::map`, for a file of the mount by its path below it ("directory/file"). Leads nowhere
  /// outside the source, whatever is there meanwhile, and follows no symbolic link. Errors name the file as
  /// seen on the mount.
  virtual Mapping map(const std::string& path, Access access, const MapOptions& options = {}) = 0;

  /// Sends an answer, and waits until it is on its way. False if the caller has gone, or the mount shall end.
  /// \throws Error(invalid_argument) that says what about it is no MountMessage
  virtual bool send(const MountMessage& message) = 0;
  /// Sends it if that needs no waiting, and drops it otherwise. \throws as `send`
  virtual void offer(const MountMessage& message) = 0;
  /// The caller's next message; waits for it. Nothing if the caller has gone, or the mount shall end.
  virtual std::optional<MountMessage> receive() = 0;
  /// The same without waiting; nothing also if there is none.
  virtual std::optional<MountMessage> receive_now() = 0;
  /// The caller has gone, or the mount shall end: nobody waits for an answer.
  virtual bool is_over() = 0;
};

/// A place on a mount of aprime.
struct MountedPath {
  /// Absolute, without symbolic links.
  std::string mountpoint;
  /// Below the root of the tree that is shown; empty for the root itself.
  std::string path;
};
/// Where a path leads if that is on a mount of aprime, served or stale. Nothing if it leads elsewhere.
std::optional<MountedPath> find_on_mount(const std::string& path);

namespace mount {
class Connection;
}

/// The caller's side of a call. Move-only; one thread at a time.
class MountConnection {
 public:
  /// Connects to the process that serves the mount on which `path` lies, which must belong to this user.
  /// \throws Error(cannot_open) what is there instead, or what is wrong with the mount
  explicit MountConnection(const std::string& path);
  MountConnection(MountConnection&&) noexcept;
  MountConnection& operator=(MountConnection&&) noexcept;
  ~MountConnection();

  /// Does nothing if the process has said its last, which `receive` tells.
  /// \throws Error(invalid_argument) that says what about it is no MountMessage; Error as `receive`
  void send(const MountMessage& message);
  /// The next answer; nothing if none came within `patience`, or a signal did. \throws Error(cannot_open) if
  /// the process is gone or does not understand; Error of any kind that it answers with
  std::optional<MountMessage> receive(std::chrono::milliseconds patience);

 private:
  std::unique_ptr<mount::Connection> connection_;
};

}  // namespace aprime
