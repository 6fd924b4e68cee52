#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "host/os/file.hpp"

namespace aprime::os {

/// One end of a connection between two processes of this machine, which carries messages: a length of 4
/// bytes, little-endian, and as many bytes. Memory is taken as bytes arrive, whatever length was announced.
/// One thread at a time.
class MessageSocket {
 public:
  enum class Outcome : std::uint8_t {
    done,
    closed,     ///< the other end is gone
    stopped,    ///< the stop event came
    timed_out,  ///< nothing came in time
    too_large,  ///< what the other end announces is over the limit; nothing more can be received
  };
  using Patience = std::optional<std::chrono::milliseconds>;

  /// Of no connection.
  MessageSocket() = default;
  /// `limit`: the longest message to receive. `stop_event` (-1: none): a descriptor that becomes readable
  /// when all waiting shall end; it must outlive this.
  MessageSocket(Descriptor connected, std::size_t limit, int stop_event = -1) noexcept;

  /// Sends all of a message, however long the other end takes.
  Outcome send(std::string_view message);
  /// Whether a message of some 10 KiB could be sent without waiting.
  bool has_room() const noexcept;
  /// Receives the next message; waits for it for ever if there is no `patience`.
  Outcome receive(std::string* message, Patience patience);
  /// The user whose process is at the other end; nothing if the system does not tell.
  std::optional<uid_t> peer_user() const noexcept;

 private:
  /// Takes a whole message out of what was received.
  bool take(std::string* message);
  Outcome wait_for(short events, Patience patience) const noexcept;

  Descriptor fd_;
  std::size_t limit_ = 0;
  int stop_event_ = -1;
  std::string received_;
};

/// A socket file that processes of the same user can connect to; it goes with this object. Mode 0600.
class ListeningSocket {
 public:
  /// Replaces a socket file that nobody listens at, and waits for one whose process is about to end. The
  /// directory, whose parent must exist, is made with mode 0700 if it is not there. \throws Error(resources)
  /// what is wrong with the path, or with a directory that others could write to
  ListeningSocket(const std::string& directory, const std::string& name);
  /// Removes the socket file, if it is this one's still.
  ~ListeningSocket();
  ListeningSocket(const ListeningSocket&) = delete;
  ListeningSocket& operator=(const ListeningSocket&) = delete;

  const std::string& path() const noexcept { return path_; }
  int descriptor() const noexcept { return fd_.get(); }
  /// The next connection, not waited for; empty if there is none.
  Descriptor accept() const noexcept;

 private:
  std::string path_;
  Descriptor fd_;
  FileIdentity file_{};
};

/// Connects to such a file of this user. Returns an errno: ENOENT if there is none, EPERM if it is another
/// user's or open to others, ECONNREFUSED if nobody listens.
[[nodiscard]] int connect_to(const std::string& path, Descriptor* connected) noexcept;

}  // namespace aprime::os
