#include "host/os/mount_point.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>

#include "host/os/failure.hpp"
#include "host/os/file.hpp"
#include "host/os/syscalls.hpp"

namespace aprime::os {
namespace {

/// Undoes the octal escapes of /proc/self/mountinfo.
std::string unescaped(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

/// Calls `fn(const MountEntry&)` for each mount, in the order in which they were made.
template <class Fn>
void for_each_mount(Fn&& fn) {
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields(line);
    std::string id, parent, device, source, options, word;
    MountEntry entry;
    fields >> id >> parent >> device >> entry.root >> entry.point;
    while (fields >> word && word != "-") {
    }
    fields >> entry.type >> source >> options;
    entry.root = unescaped(entry.root);
    entry.point = unescaped(entry.point);
    unsigned major = 0, minor = 0, user = 0;
    if (std::sscanf(device.c_str(), "%u:%u", &major, &minor) == 2) entry.device = ::makedev(major, minor);
    const std::size_t at = options.find("user_id=");
    if (at != std::string::npos && std::sscanf(options.c_str() + at, "user_id=%u", &user) == 1)
      entry.user = user;
    fn(entry);
  }
}

/// The type of the file system mounted there last; empty if there is none.
std::string type_mounted_at(const std::string& path) {
  std::string found;
  for_each_mount([&](const MountEntry& entry) {
    if (entry.point == path) found = entry.type;
  });
  return found;
}

/// Whether that is the error of a mount whose daemon is gone: ECONNABORTED where it went while the request
/// was on its way.
bool is_of_lost_daemon(int error) noexcept { return error == ENOTCONN || error == ECONNABORTED; }

bool lies_in(const std::string& path, const std::string& directory) {
  if (directory == "/") return true;
  return path.starts_with(directory) && (path.size() == directory.size() || path[directory.size()] == '/');
}

std::string real_path(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
  return real != nullptr ? real.get() : "";
}

int run_fusermount(const std::string& path, Detach how) {
  std::string program = "fusermount3", unmount = how == Detach::now ? "-uqz" : "-uq", end = "--", at = path;
  char* arguments[] = {program.data(), unmount.data(), end.data(), at.data(), nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, program.c_str(), &actions, nullptr, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return error;
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return errno;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : EPERM;
}

}  // namespace

std::string canonical_path(const std::string& path) {
  std::string real = real_path(path);
  struct ::stat s {};
  int error = real.empty() ? errno : 0;
  if (error == 0 && ::stat(real.c_str(), &s) == 0 && !S_ISDIR(s.st_mode)) error = ENOTDIR;
  if (error == 0) return real;
  if (is_of_lost_daemon(error)) {
    std::string whole = path;
    while (whole.size() > 1 && whole.back() == '/') whole.pop_back();
    const std::size_t slash = whole.rfind('/');
    const std::string parent = slash == std::string::npos ? "." : whole.substr(0, slash + 1);
    real = real_path(parent);
    if (!real.empty()) return real + (real == "/" ? "" : "/") + whole.substr(slash + 1);
  }
  const std::string why = error == ENOENT    ? "no such directory"
                          : error == ENOTDIR ? "it is no directory"
                          : is_of_lost_daemon(error)
                              ? "it lies on a stale mount, whose process is gone; unmount that first"
                              : failure(Errc::cannot_open, "the system says", error).what();
  throw Error(Errc::cannot_open, fmt::format("cannot use '{}': {}", path, why), path, error);
}

MountedThere mounted_at(const std::string& canonical, std::string_view type) {
  const std::string found = type_mounted_at(canonical);
  if (found.empty()) return MountedThere::nothing;
  struct ::stat s {};
  bool is_stale = ::lstat(canonical.c_str(), &s) != 0 && is_of_lost_daemon(errno);
  // Attributes may be believed for a while after the daemon has gone; this is always asked.
  struct ::statvfs fs {};
  if (found == type && ::statvfs(canonical.c_str(), &fs) != 0 && is_of_lost_daemon(errno)) is_stale = true;
  // Or it has just gone with its mount.
  if (is_stale && type_mounted_at(canonical) != found) return mounted_at(canonical, type);
  if (found != type) return is_stale ? MountedThere::other_stale : MountedThere::other;
  return is_stale ? MountedThere::ours_stale : MountedThere::ours;
}

std::string resolved_path(const std::string& path) {
  std::string known = path, rest;
  while (known.size() > 1 && known.back() == '/') known.pop_back();
  for (;;) {
    const std::string real = real_path(known.empty() ? "." : known);
    if (!real.empty()) return rest.empty() ? real : (real == "/" ? "" : real) + rest;
    const std::size_t slash = known.rfind('/');
    if (known.empty() || known == "/") return path;
    rest = "/" + known.substr(slash == std::string::npos ? 0 : slash + 1) + rest;
    known = slash == std::string::npos ? "" : slash == 0 ? "/" : known.substr(0, slash);
  }
}

std::optional<MountEntry> mount_of(const std::string& resolved) {
  std::optional<MountEntry> found;
  for_each_mount([&](const MountEntry& entry) {
    if (lies_in(resolved, entry.point) && (!found || entry.point.size() >= found->point.size()))
      found = entry;
  });
  return found;
}

int unmount_at(const std::string& canonical, Detach how) {
  if (::geteuid() != 0) return run_fusermount(canonical, how);
  const int flags = UMOUNT_NOFOLLOW | (how == Detach::now ? MNT_DETACH : 0);
  return ::umount2(canonical.c_str(), flags) == 0 ? 0 : errno;
}

int abort_connection(const MountEntry& mount) {
  const std::string path = fmt::format("/sys/fs/fuse/connections/{}/abort", gnu_dev_minor(mount.device));
  const Descriptor abort(sys::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (abort) return ::write(abort.get(), "1", 1) == 1 ? 0 : errno;
  if (::geteuid() != 0) return errno;
  // Does that first, and then unmounts unless it is in use.
  return ::umount2(mount.point.c_str(), UMOUNT_NOFOLLOW | MNT_FORCE) == 0 || errno == EBUSY ? 0 : errno;
}

}  // namespace aprime::os
