#pragma once

#include <string>

#include "aprime/mount_call.hpp"
#include "host/os/message_socket.hpp"
#include "host/os/mount_point.hpp"

namespace aprime::mount {

/// What a MountConnection is made of: the caller's end of the socket of a mount.
class Connection {
 public:
  /// \throws Error(cannot_open)
  explicit Connection(const std::string& path);

  const std::string& mountpoint() const noexcept { return mount_.point; }
  void send(const MountMessage& message);
  std::optional<MountMessage> receive(std::chrono::milliseconds patience);

  /// Says that this process is about to unmount. False if the other one takes no notice.
  bool begin_unmount();
  /// After that, and when it is unmounted: waits until all that devices have is home, if this has ended the
  /// mount. \throws Error if something could not go home, of the kind that the process answers with
  void wait_for_end();

 private:
  [[noreturn]] void fail_as_ended() const;
  MountMessage understood(const std::string& text) const;

  const os::MountEntry mount_;
  os::MessageSocket socket_;
  /// The last one of a process that takes no more messages.
  std::optional<MountMessage> last_answer_;
};

}  // namespace aprime::mount
