#include "host/mount/connection.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "aprime/error.hpp"
#include "host/mount/protocol.hpp"
#include "host/mount/session.hpp"
#include "host/os/failure.hpp"

namespace aprime {
namespace mount {
namespace {

using Outcome = os::MessageSocket::Outcome;

constexpr std::chrono::seconds kStatusPatience{60};
/// A process that hangs is unmounted all the same.
constexpr std::chrono::seconds kUnmountPatience{10};

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw Error(Errc::cannot_open, fmt::format("cannot use '{}': {}", path, why), path);
}

bool is_stale(const std::string& mountpoint) {
  return os::mounted_at(mountpoint, kFileSystemType) == os::MountedThere::ours_stale;
}

os::MountEntry own_mount_of(const std::string& path) {
  const std::optional<os::MountEntry> found = os::mount_of(os::resolved_path(path));
  if (!found || found->type != kFileSystemType) {
    if (::access(path.c_str(), F_OK) != 0) throw os::open_failure(path, errno, Access::read);
    refuse(path, "it lies on no mount of aprime");
  }
  if (found->user && *found->user != ::geteuid())
    refuse(path, fmt::format("it lies on a mount of user {}, who alone may ask its process", *found->user));
  if (is_stale(found->point))
    refuse(found->point,
           fmt::format("it is a stale mount, whose process is gone; remove it by `aprime unmount {}`",
                       found->point));
  return *found;
}

os::Descriptor connect_to_process(const os::MountEntry& mount) {
  os::Descriptor connected;
  std::string tried;
  for (const std::string& directory : socket_directories(::geteuid())) {
    const std::string path = directory + "/" + socket_name(mount.device);
    const int error = os::connect_to(path, &connected);
    if (error == 0) return connected;
    tried += (tried.empty() ? "" : " and ") + path;
    if (error == EPERM) tried += " (which is not this user's alone)";
  }
  refuse(mount.point, fmt::format("nobody listens for it at {}; unmount and mount again", tried));
}

}  // namespace

Connection::Connection(const std::string& path)
    : mount_(own_mount_of(path)), socket_(connect_to_process(mount_), kAnswerMax) {
  if (socket_.peer_user() != ::geteuid()) refuse(mount_.point, "another user's process listens for it");
}

void Connection::fail_as_ended() const {
  refuse(
      mount_.point,
      is_stale(mount_.point)
          ? fmt::format("its process has ended; remove the stale mount by `aprime unmount {}`", mount_.point)
          : "it was unmounted meanwhile");
}

void Connection::send(const MountMessage& message) {
  if (socket_.send(encode(message, mount_.device)) == Outcome::done) return;
  // Whoever no longer listens has said why, or has said all.
  if (!last_answer_) last_answer_ = receive(std::chrono::milliseconds{0});
  if (!last_answer_) fail_as_ended();
}

std::optional<MountMessage> Connection::receive(std::chrono::milliseconds patience) {
  if (last_answer_) return std::exchange(last_answer_, std::nullopt);
  std::string text;
  switch (socket_.receive(&text, patience)) {
    case Outcome::done: break;
    case Outcome::timed_out: return std::nullopt;
    case Outcome::too_large: refuse(mount_.point, "its process gives an answer that makes no sense");
    case Outcome::closed:
    case Outcome::stopped: fail_as_ended();
  }
  MountMessage answer = understood(text);
  throw_if_error(answer);
  return answer;
}

bool Connection::begin_unmount() {
  try {
    send({kUnmount});
    return receive(kUnmountPatience).has_value();
  } catch (const Error&) {
    return false;  // of another version, for example
  }
}

void Connection::wait_for_end() {
  // If that fails, it has said all and gone already.
  static_cast<void>(socket_.send(encode({kUnmount}, mount_.device)));
  const std::string unsaved =
      fmt::format("'{}' is unmounted, but not all bytes are in their files: ", mount_.point);
  std::string text;
  if (socket_.receive(&text, std::nullopt) != Outcome::done)
    throw Error(Errc::io, unsaved + "its process ended before", mount_.point);
  try {
    throw_if_error(understood(text));
  } catch (const Error& error) {
    throw Error(error.code(), unsaved + error.what(), mount_.point);
  }
}

MountMessage Connection::understood(const std::string& text) const {
  try {
    return decode(text, mount_.device);
  } catch (const Error& error) {
    refuse(mount_.point, fmt::format("its process gives an answer that makes no sense: {}", error.what()));
  }
}

}  // namespace mount

std::optional<MountedPath> find_on_mount(const std::string& path) {
  const std::string resolved = os::resolved_path(path);
  const std::optional<os::MountEntry> found = os::mount_of(resolved);
  if (!found || found->type != mount::kFileSystemType) return std::nullopt;
  std::string below = found->root + resolved.substr(found->point == "/" ? 0 : found->point.size());
  below.erase(0, below.find_first_not_of('/'));
  return MountedPath{found->point, below};
}

MountStatus mount_status(const std::string& path) {
  mount::Connection connection(path);
  connection.send({"status"});
  const auto end = std::chrono::steady_clock::now() + mount::kStatusPatience;
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    if (left.count() <= 0)
      mount::refuse(connection.mountpoint(), "its process does not answer; does it hang?");
    if (const auto answer = connection.receive(left))
      return mount::status_of(*answer, connection.mountpoint());
  }
}

MountConnection::MountConnection(const std::string& path)
    : connection_(std::make_unique<mount::Connection>(path)) {}
MountConnection::MountConnection(MountConnection&&) noexcept = default;
MountConnection& MountConnection::operator=(MountConnection&&) noexcept = default;
MountConnection::~MountConnection() = default;
void MountConnection::send(const MountMessage& message) { connection_->send(message); }
std::optional<MountMessage> MountConnection::receive(std::chrono::milliseconds patience) {
  return connection_->receive(patience);
}

}  // namespace aprime
