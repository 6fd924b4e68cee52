#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <climits>

#include "host/os/failure.hpp"
#include "host/os/file_state.hpp"
#include "host/os/syscalls.hpp"

namespace aprime::os {
namespace {

int open_flags(Access access) noexcept { return access == Access::read ? O_RDONLY : O_RDWR; }

std::string kind_in_words(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR: return "it is a directory; give a regular file";
    case S_IFIFO: return "it is a named pipe, which has no bytes at an offset; give a regular file";
    case S_IFSOCK: return "it is a socket; give a regular file";
    case S_IFCHR: return "it is a character device; give a regular file";
    case S_IFBLK:
      return "it is a block device; give a regular file (copy it into one, or use a loop-mounted image's "
             "file)";
    default: return "it is no regular file";
  }
}

std::string reason_in_words(int system_error, Access access) {
  const bool writing = access == Access::read_write;
  switch (system_error) {
    case ENOENT:
      return writing
                 ? "no such file; create it with the size it shall have (for instance: truncate -s 1G FILE)"
                 : "no such file";
    case ENOTDIR: return "a part of the path is no directory";
    case EISDIR: return kind_in_words(S_IFDIR);
    case ENXIO: return kind_in_words(S_IFSOCK);
    case EACCES:
      return writing ? "no permission to read and write it; open it read-only, or change its mode"
                     : "no permission to read it; change its mode, or that of the directories above it";
    case EPERM:
      return writing
                 ? "it is immutable, append-only or sealed; open it read-only, or use chattr to change that"
                 : "the system forbids it";
    case EROFS: return "its file system is mounted read-only; open it read-only";
    case ETXTBSY: return "it is a program that is running; open it read-only";
    case ELOOP: return "its path leads through too many symbolic links, perhaps in a circle";
    case EMFILE: return "this process has too many open files; raise its limit (ulimit -n)";
    default: return failure(Errc::cannot_open, "the system says", system_error).what();
  }
}

Error cannot_open(const std::string& path, const std::string& why, int system_error) {
  const bool is_about_us = system_error == EMFILE || system_error == ENFILE || system_error == ENOMEM;
  return Error(is_about_us ? Errc::resources : Errc::cannot_open,
               fmt::format("cannot open '{}': {}", path, why), path, system_error);
}

/// Where files are stored to by mmap only, what devices have could never be written home.
void require_write_call(int fd, const std::string& path, Access access) {
  struct ::statfs system {};
  if (access == Access::read || ::fstatfs(fd, &system) != 0 || system.f_type != HUGETLBFS_MAGIC) return;
  throw cannot_open(path, "its file system, hugetlbfs, has no write(2); open it read-only", 0);
}

/// O_NONBLOCK, so that a pipe without a writer does not block; it means nothing to regular files, and goes
/// before anybody can depend on it.
Descriptor open_regular(const std::string& name, const std::string& path, Access access,
                        struct ::stat* found) {
  Descriptor fd(sys::open(path.c_str(), open_flags(access) | O_NONBLOCK | O_NOCTTY));
  if (!fd || sys::fstat(fd.get(), found) != 0) throw open_failure(name, errno, access);
  if (!S_ISREG(found->st_mode)) throw cannot_open(name, kind_in_words(found->st_mode), 0);
  require_write_call(fd.get(), name, access);
  if (sys::fcntl(fd.get(), F_SETFL, 0) != 0) throw open_failure(name, errno, access);
  return fd;
}

FileIdentity identity_of(const struct ::stat& s) noexcept { return {s.st_dev, s.st_ino}; }

/// Opens the file behind `fd` once more, whatever its name is by now. Not valid where /proc is not mounted.
Descriptor reopen(int fd, int flags) {
  return Descriptor(sys::open(fmt::format("/proc/self/fd/{}", fd).c_str(), flags));
}

/// What the file system demands of direct I/O; a page suits all that do not say, and 0 means that it has
/// none.
ByteCount find_direct_alignment(int fd) noexcept {
  struct ::statx s {};
  if (sys::statx(fd, STATX_DIOALIGN, &s) != 0 || (s.stx_mask & STATX_DIOALIGN) == 0)
    return ByteCount{kPageBytes};
  return ByteCount{std::max<std::uint64_t>(s.stx_dio_mem_align, s.stx_dio_offset_align)};
}

}  // namespace

Error open_failure(const std::string& path, int system_error, Access access) {
  return cannot_open(path, reason_in_words(system_error, access), system_error);
}

Descriptor::~Descriptor() {
  // Never retried: Linux has released the descriptor even when it reports EINTR.
  if (fd_ >= 0) ::close(fd_);
}

int File::State::keep(Descriptor fd_to_keep) {
  descriptors.push_front(std::move(fd_to_keep));
  return descriptors.front().get();
}

void File::State::open_direct() {
  Descriptor direct = reopen(fd.load(), open_flags(access.load()) | O_DIRECT);
  direct_fd.store(direct ? keep(std::move(direct)) : -1);
}

void File::State::write_by(Descriptor fd_to_keep) {
  fd.store(keep(std::move(fd_to_keep)));
  access.store(Access::read_write, std::memory_order_release);
  if (direct_fd.load() >= 0) open_direct();
}

File File::open(const std::string& path, Access access) { return open_as(path, path, access); }

File File::open_as(const std::string& name, const std::string& path, Access access) {
  struct ::stat found {};
  Descriptor fd = open_regular(name, path, access, &found);
  auto state = std::make_unique<State>();
  state->path = name;
  state->identity = identity_of(found);
  state->access.store(access);
  state->fd.store(state->keep(std::move(fd)));
  const ByteCount alignment = find_direct_alignment(state->fd.load());
  if (alignment.value != 0) {
    state->direct_alignment = alignment;
    state->open_direct();
  }
  File file(std::move(state));
  file.extend_alias(ByteCount{static_cast<std::uint64_t>(found.st_size)});
  return file;
}

File::File(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
File::File(File&&) noexcept = default;
File::~File() = default;

const std::string& File::path() const noexcept { return state_->path; }
int File::descriptor() const noexcept { return state_->fd.load(); }

FileIdentity File::identity() const noexcept { return state_->identity; }

std::string File::current_path() const {
  std::string path(PATH_MAX, '\0');
  const std::string link = fmt::format("/proc/self/fd/{}", state_->fd.load());
  const ssize_t n = ::readlink(link.c_str(), path.data(), path.size());
  path.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  // A file without a name is shown with a name as well, of which it is said that it was deleted.
  struct ::stat found {};
  if (path.empty() || ::stat(path.c_str(), &found) != 0 || identity_of(found) != identity()) return {};
  return path;
}

Access File::access() const noexcept { return state_->access.load(std::memory_order_acquire); }
ByteCount File::direct_alignment() const noexcept { return state_->direct_alignment; }
bool File::direct_supported() const noexcept { return state_->direct_fd.load() >= 0; }

void File::make_writable(const std::string& path) {
  const std::lock_guard lock(state_->mutex);
  if (access() == Access::read_write) return;
  Descriptor fd = reopen(state_->fd.load(), O_RDWR);
  if (!fd && errno != ENOENT) throw open_failure(path, errno, Access::read_write);
  if (!fd) {
    struct ::stat found {};
    fd = open_regular(path, path, Access::read_write, &found);
    if (identity_of(found) != state_->identity) {
      throw cannot_open(path, "it is another file than the one that was opened for reading; open it anew", 0);
    }
  }
  state_->write_by(std::move(fd));
}

int File::make_writable(int fd) {
  const std::lock_guard lock(state_->mutex);
  if (access() == Access::read_write) return 0;
  Descriptor own = reopen(state_->fd.load(), O_RDWR);
  const int error = errno;
  if (!own && (::fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR)
    own = Descriptor(sys::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!own) return error;
  state_->write_by(std::move(own));
  return 0;
}

}  // namespace aprime::os
