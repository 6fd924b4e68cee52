#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "aprime/error.hpp"
#include "aprime/mount_call.hpp"
#include "aprime/mount_status.hpp"

// What goes over a mount's socket. Each message is a JSON object:
//   {"version": 1, "mount": DEVICE, "type": "...", "body": {...}}
// "mount" is the device number of the mount's file system, so that nobody talks to another mount than he
// means. A call is one request, answered by messages whose types are the request's own, or by one of the type
// "error", whose body {"code": "...", "message": "..."} and place in the object are the same in all versions;
// it may have more: "path", "errno", "offset".
//
// Who unmounts says so by a request of the type "unmount", which is answered at once, and a second one when
// it is unmounted. The answer to that one comes when all bytes are home, or could not go there; or at once,
// if the mount goes on because it is in use.

namespace aprime::mount {

inline constexpr std::uint64_t kProtocolVersion = 1;
inline constexpr const char* kUnmount = "unmount";
/// The longest request, and the longest answer, in bytes.
inline constexpr std::size_t kRequestMax = std::size_t{1} << 20;
inline constexpr std::size_t kAnswerMax = std::size_t{64} << 20;

/// Directories in which the sockets of a user's mounts may be, best first.
std::vector<std::string> socket_directories(uid_t user);
/// Name of the socket of a mount in such a directory.
std::string socket_name(std::uint64_t device);

/// \throws Error(invalid_argument) that says what the message should have
std::string encode(const MountMessage& message, std::uint64_t device);
/// \throws Error(invalid_argument) that says what is wrong with it; Error(conflict) if it is of another
/// version or for another mount
MountMessage decode(std::string_view text, std::uint64_t device);

/// The answer for a failed call.
MountMessage error_message(const Error& error);
MountMessage error_message(const std::exception& error);
/// Throws what an answer of type "error" says; does nothing for others.
void throw_if_error(const MountMessage& answer);

MountMessage status_message(const MountStatus& status);
/// What the process of `mountpoint` answers. \throws Error(cannot_open) if it is not such a message
MountStatus status_of(const MountMessage& answer, const std::string& mountpoint);

}  // namespace aprime::mount
