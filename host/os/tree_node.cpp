#include "host/os/tree_node.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>

#include "host/os/failure.hpp"
#include "host/os/syscalls.hpp"

namespace aprime::os {
namespace {

/// The way to reach an object by its descriptor for calls that take a path only. Following it leads to the
/// object itself, even if that is a symbolic link.
class ProcPath {
 public:
  explicit ProcPath(int fd) noexcept {
    *fmt::format_to_n(text_.data(), text_.size() - 1, "/proc/self/fd/{}", fd).out = '\0';
  }
  const char* get() const noexcept { return text_.data(); }

 private:
  std::array<char, 32> text_;
};

int error_of(int result) noexcept { return result == -1 ? errno : 0; }

constexpr std::uint64_t kBeneath = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;

::open_how how_to_open(int flags, mode_t mode, std::uint64_t resolve) noexcept {
  ::open_how how{};
  how.flags = static_cast<std::uint64_t>(flags);
  how.mode = mode;
  how.resolve = resolve;
  return how;
}

}  // namespace

TreeNode TreeNode::open_root(const std::string& path) {
  Descriptor fd(sys::open(path.c_str(), O_PATH | O_DIRECTORY));
  if (fd) return TreeNode(std::move(fd));
  const int error = errno;
  const std::string why = error == ENOENT    ? "no such directory"
                          : error == ENOTDIR ? "it is no directory"
                                             : failure(Errc::cannot_open, "the system says", error).what();
  throw Error(Errc::cannot_open, fmt::format("cannot open '{}': {}", path, why), path, error);
}

int TreeNode::stat(struct ::stat* out) const noexcept { return error_of(sys::fstat(fd_.get(), out)); }

int TreeNode::stat_fs(struct ::statvfs* out) const noexcept { return error_of(::fstatvfs(fd_.get(), out)); }

int TreeNode::read_link(std::string* target) const {
  target->resize(PATH_MAX);
  const ssize_t n = ::readlinkat(fd_.get(), "", target->data(), target->size());
  if (n < 0) return errno;
  target->resize(static_cast<std::size_t>(n));
  return 0;
}

int TreeNode::look_up(const char* name, TreeNode* found) const noexcept {
  Descriptor fd(sys::openat2(fd_.get(), name, how_to_open(O_PATH | O_NOFOLLOW, 0, RESOLVE_BENEATH)));
  if (!fd) return errno;
  *found = TreeNode(std::move(fd));
  return 0;
}

int TreeNode::find(const std::string& path, TreeNode* found) const noexcept {
  Descriptor fd(sys::openat2(fd_.get(), path.c_str(), how_to_open(O_PATH | O_NOFOLLOW, 0, kBeneath)));
  if (!fd) return errno;
  *found = TreeNode(std::move(fd));
  return 0;
}

int TreeNode::create(const char* name, int flags, mode_t mode, Descriptor* opened) const noexcept {
  return create_by(name, flags | O_CREAT | O_EXCL, mode, opened);
}

int TreeNode::create_unnamed(int flags, mode_t mode, Descriptor* opened) const noexcept {
  return create_by(".", flags | O_TMPFILE, mode, opened);
}

int TreeNode::create_by(const char* path, int flags, mode_t mode, Descriptor* opened) const noexcept {
  Descriptor fd(sys::openat2(fd_.get(), path, how_to_open(flags, mode & 07777, kBeneath)));
  if (!fd) return errno;
  *opened = std::move(fd);
  return 0;
}

int TreeNode::hold(const Descriptor& opened, TreeNode* node) noexcept {
  // By its descriptor: a name may lead to another file by now.
  Descriptor held(sys::open(ProcPath(opened.get()).get(), O_PATH));
  if (!held) return errno;
  *node = TreeNode(std::move(held));
  return 0;
}

int TreeNode::make_directory(const char* name, mode_t mode) const noexcept {
  return error_of(::mkdirat(fd_.get(), name, mode));
}

int TreeNode::make_node(const char* name, mode_t mode, dev_t device) const noexcept {
  return error_of(::mknodat(fd_.get(), name, mode, device));
}

int TreeNode::make_symlink(const char* name, const char* target) const noexcept {
  return error_of(::symlinkat(target, fd_.get(), name));
}

int TreeNode::link(const char* name, const TreeNode& node) const noexcept {
  return error_of(::linkat(AT_FDCWD, ProcPath(node.fd_.get()).get(), fd_.get(), name, AT_SYMLINK_FOLLOW));
}

int TreeNode::remove(const char* name) const noexcept { return error_of(::unlinkat(fd_.get(), name, 0)); }

int TreeNode::remove_directory(const char* name) const noexcept {
  return error_of(::unlinkat(fd_.get(), name, AT_REMOVEDIR));
}

int TreeNode::rename(const char* name, const TreeNode& new_parent, const char* new_name,
                     unsigned flags) const noexcept {
  return error_of(::renameat2(fd_.get(), name, new_parent.fd_.get(), new_name, flags));
}

int TreeNode::open(int flags, Descriptor* opened) const noexcept {
  Descriptor fd(sys::open(ProcPath(fd_.get()).get(), flags | O_NOCTTY));
  if (!fd) return errno;
  *opened = std::move(fd);
  return 0;
}

File TreeNode::open_file(const std::string& name, Access access) const {
  return File::open_as(name, ProcPath(fd_.get()).get(), access);
}

int TreeNode::set_mode(mode_t mode) const noexcept {
  return error_of(::chmod(ProcPath(fd_.get()).get(), mode & 07777));
}

int TreeNode::set_owner(uid_t user, gid_t group) const noexcept {
  return error_of(::fchownat(fd_.get(), "", user, group, AT_EMPTY_PATH));
}

int TreeNode::set_times(std::span<const timespec, 2> times) const noexcept {
  // glibc's utimensat refuses an empty path on some versions; the kernel has taken it since 5.8.
  const int error = error_of(::utimensat(fd_.get(), "", times.data(), AT_EMPTY_PATH));
  if (error != EINVAL && error != ENOENT) return error;
  return error_of(::utimensat(AT_FDCWD, ProcPath(fd_.get()).get(), times.data(), 0));
}

int TreeNode::truncate(off_t size) const noexcept {
  return error_of(::truncate(ProcPath(fd_.get()).get(), size));
}

int TreeNode::get_xattr(const char* name, char* value, std::size_t* size) const noexcept {
  const ssize_t n = ::getxattr(ProcPath(fd_.get()).get(), name, value, *size);
  if (n < 0) return errno;
  *size = static_cast<std::size_t>(n);
  return 0;
}

int TreeNode::list_xattr(char* names, std::size_t* size) const noexcept {
  const ssize_t n = ::listxattr(ProcPath(fd_.get()).get(), names, *size);
  if (n < 0) return errno;
  *size = static_cast<std::size_t>(n);
  return 0;
}

int TreeNode::set_xattr(const char* name, std::span<const char> value, int flags) const noexcept {
  return error_of(::setxattr(ProcPath(fd_.get()).get(), name, value.data(), value.size(), flags));
}

int TreeNode::remove_xattr(const char* name) const noexcept {
  return error_of(::removexattr(ProcPath(fd_.get()).get(), name));
}

}  // namespace aprime::os
