#include "aprime/mount.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "aprime/error.hpp"
#include "aprime/runtime.hpp"
#include "host/engine/failure.hpp"
#include "host/mount/connection.hpp"
#include "host/mount/protocol.hpp"
#include "host/mount/server.hpp"
#include "host/os/mount_point.hpp"

namespace aprime {
namespace {

using os::MountedThere;

[[noreturn]] void refuse(const std::string& path, std::string_view why, int system_error = 0) {
  throw Error(Errc::cannot_open, fmt::format("cannot use '{}': {}", path, why), path, system_error);
}

bool lies_in(const std::string& path, const std::string& directory) {
  if (directory == "/") return true;
  return path.starts_with(directory) && (path.size() == directory.size() || path[directory.size()] == '/');
}

[[noreturn]] void refuse_stale(const std::string& path) {
  refuse(path, fmt::format("a stale mount is there, whose process is gone; remove it by `aprime unmount {}` "
                           "(or fusermount3 -u)",
                           path));
}

void require_free(const std::string& mountpoint) {
  switch (os::mounted_at(mountpoint, mount::kFileSystemType)) {
    case MountedThere::nothing:
    case MountedThere::other: return;
    case MountedThere::ours: refuse(mountpoint, "it is a mount of aprime already; unmount it first");
    case MountedThere::ours_stale:
    case MountedThere::other_stale: refuse_stale(mountpoint);
  }
}

/// The mount of ours that is there, going by names.
std::optional<os::MountEntry> our_mount_at(const std::string& mountpoint) {
  const std::string at = os::resolved_path(mountpoint);
  std::optional<os::MountEntry> entry = os::mount_of(at);
  if (entry && (entry->point != at || entry->type != mount::kFileSystemType)) entry.reset();
  return entry;
}

/// So that nobody waits for its daemon any more, we included.
void end_connection(const os::MountEntry& entry) {
  const int error = os::abort_connection(entry);
  if (error == ENOENT)
    refuse(entry.point,
           "the connection to its process cannot be ended: mount the file system of connections first (mount "
           "-t fusectl none /sys/fs/fuse/connections)",
           error);
  if (error != 0)
    refuse(entry.point,
           fmt::format("the connection to its process cannot be ended: {}", std::strerror(error)), error);
}

/// To the process of the mount there; empty where there is none that this user can ask.
std::optional<mount::Connection> connection_to(const std::string& mountpoint) {
  try {
    std::optional<mount::Connection> connection(std::in_place, mountpoint);
    if (connection->begin_unmount()) return connection;
  } catch (const Error&) {
    // Another user's mount, for example: its end cannot be waited for.
  }
  return std::nullopt;
}

/// What a daemon leaves behind that was killed.
void remove_sockets(std::uint64_t device) {
  for (const std::string& directory : mount::socket_directories(::geteuid()))
    ::unlink((directory + "/" + mount::socket_name(device)).c_str());
}

}  // namespace

bool can_mount() noexcept { return true; }

Mount::Mount(std::unique_ptr<mount::Server> server) noexcept : server_(std::move(server)) {}
Mount::Mount() noexcept = default;
Mount::Mount(Mount&&) noexcept = default;

Mount& Mount::operator=(Mount&& other) noexcept {
  std::swap(server_, other.server_);
  return *this;
}

Mount::~Mount() {
  // After fork() there are no threads to end; the mount belongs to the parent.
  if (server_ != nullptr && !server_->is_own_process()) static_cast<void>(server_.release());
}

const std::string& Mount::source() const noexcept { return server_->source_path(); }
const std::string& Mount::mountpoint() const noexcept { return server_->mountpoint(); }
MountStatus Mount::status() const { return server_->status(); }
void Mount::wait() const {
  if (!server_->is_own_process()) throw Error(Errc::invalid_argument, engine::kInChildProcess);
  server_->wait();
}

void Mount::unmount() noexcept {
  if (server_ != nullptr && server_->is_own_process()) server_->unmount();
}

Mount Runtime::mount(const std::string& source, const std::string& mountpoint, const MountOptions& options) {
  static_cast<void>(used());
  const std::string from = os::canonical_path(source);
  const std::string to = os::canonical_path(mountpoint);
  require_free(to);
  if (lies_in(to, from))
    refuse(mountpoint,
           fmt::format("it lies in '{}', so the mount would contain itself; mount elsewhere", from));
  if (lies_in(from, to))
    refuse(mountpoint, fmt::format("the mount would hide '{}', which lies in it; mount elsewhere", from));
  switch (os::mounted_at(from, mount::kFileSystemType)) {
    case MountedThere::nothing:
    case MountedThere::other: break;
    case MountedThere::ours: refuse(source, "it is itself a mount of aprime; mount its source");
    case MountedThere::ours_stale:
    case MountedThere::other_stale: refuse_stale(source);
  }
  return Mount(std::make_unique<mount::Server>(state_, from, to, options));
}

void unmount(const std::string& mountpoint, Unmount how) {
  const std::optional<os::MountEntry> ended = how == Unmount::force ? our_mount_at(mountpoint) : std::nullopt;
  if (ended) end_connection(*ended);
  const std::string at = os::canonical_path(mountpoint);
  const MountedThere found = os::mounted_at(at, mount::kFileSystemType);
  if (ended && found == MountedThere::nothing) return remove_sockets(ended->device);
  if (found == MountedThere::nothing) refuse(mountpoint, "nothing is mounted there");
  if (found == MountedThere::other || found == MountedThere::other_stale)
    refuse(mountpoint, "what is mounted there is no mount of aprime; use umount");
  // A dead mount has nobody to wait for.
  const bool now = how != Unmount::when_idle || found == MountedThere::ours_stale;
  // A daemon that was killed has left its socket behind. As long as its mount is there, the name is nobody
  // else's: the kernel gives the device number to the next mount.
  if (const auto entry = os::mount_of(at); entry && found == MountedThere::ours_stale)
    remove_sockets(entry->device);
  // Made now, as afterwards there is nothing that leads to it.
  const bool ends_well = found == MountedThere::ours && how != Unmount::force;
  std::optional<mount::Connection> process = ends_well ? connection_to(at) : std::nullopt;
  const int error = os::unmount_at(at, now ? os::Detach::now : os::Detach::when_idle);
  if (error == 0) {
    if (process) process->wait_for_end();
    return;
  }
  if (error == EBUSY)
    refuse(mountpoint,
           fmt::format("programs use it (`fuser -vm {}` tells which); end them, or use --lazy", mountpoint),
           error);
  if (error == EPERM) refuse(mountpoint, "it is another user's, or programs use it; try --lazy", error);
  refuse(mountpoint, std::strerror(error), error);
}

}  // namespace aprime
