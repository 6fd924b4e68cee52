#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include <ctime>
#include <span>
#include <string>

#include "host/os/file.hpp"

namespace aprime::os {

/// One object of a directory tree (file, directory, symbolic link, ...), held by an O_PATH descriptor: it
/// stays what it is when its name changes or goes, and holding it needs no permission on it.
///
/// A `name` is one component, never a path. No operation follows a symbolic link or leaves the directory that
/// it was given, so a tree whose links point anywhere is served without reaching beyond it. Every operation
/// returns 0, or the errno of the system call that failed, and is thread-safe.
class TreeNode {
 public:
  TreeNode() = default;
  /// \throws Error(cannot_open) that says what is there instead of a directory
  static TreeNode open_root(const std::string& path);

  explicit operator bool() const noexcept { return static_cast<bool>(fd_); }

  [[nodiscard]] int stat(struct ::stat* out) const noexcept;
  [[nodiscard]] int stat_fs(struct ::statvfs* out) const noexcept;
  [[nodiscard]] int read_link(std::string* target) const;

  // On the entry `name` of this directory.
  [[nodiscard]] int look_up(const char* name, TreeNode* found) const noexcept;
  /// What `path`, below this directory, leads to; no link on the way is followed.
  [[nodiscard]] int find(const std::string& path, TreeNode* found) const noexcept;
  /// Creates a regular file and opens it. EEXIST if there is anything of the name.
  [[nodiscard]] int create(const char* name, int flags, mode_t mode, Descriptor* opened) const noexcept;
  /// Creates a regular file without a name in this directory, and opens it (O_TMPFILE). It can be linked
  /// later unless `flags` has O_EXCL.
  [[nodiscard]] int create_unnamed(int flags, mode_t mode, Descriptor* opened) const noexcept;
  /// Holds what is open.
  [[nodiscard]] static int hold(const Descriptor& opened, TreeNode* node) noexcept;
  [[nodiscard]] int make_directory(const char* name, mode_t mode) const noexcept;
  [[nodiscard]] int make_node(const char* name, mode_t mode, dev_t device) const noexcept;
  [[nodiscard]] int make_symlink(const char* name, const char* target) const noexcept;
  /// Gives `node` one more name.
  [[nodiscard]] int link(const char* name, const TreeNode& node) const noexcept;
  [[nodiscard]] int remove(const char* name) const noexcept;
  [[nodiscard]] int remove_directory(const char* name) const noexcept;
  /// `flags` as for renameat2.
  [[nodiscard]] int rename(const char* name, const TreeNode& new_parent, const char* new_name,
                           unsigned flags) const noexcept;

  // On the object itself.
  /// Opens it for I/O. \pre it is no symbolic link
  [[nodiscard]] int open(int flags, Descriptor* opened) const noexcept;
  /// Opens it as a backing file, known as `name`. \throws Error as File::open
  File open_file(const std::string& name, Access access) const;
  [[nodiscard]] int set_mode(mode_t mode) const noexcept;
  /// An id of -1 stays as it is.
  [[nodiscard]] int set_owner(uid_t user, gid_t group) const noexcept;
  /// `times`: access and modification; UTIME_NOW and UTIME_OMIT as for utimensat.
  [[nodiscard]] int set_times(std::span<const timespec, 2> times) const noexcept;
  [[nodiscard]] int truncate(off_t size) const noexcept;

  // Extended attributes. `*size`: in, the room; out, what is
  // used, or needed where the room was 0.
  [[nodiscard]] int get_xattr(const char* name, char* value, std::size_t* size) const noexcept;
  [[nodiscard]] int list_xattr(char* names, std::size_t* size) const noexcept;
  [[nodiscard]] int set_xattr(const char* name, std::span<const char> value, int flags) const noexcept;
  [[nodiscard]] int remove_xattr(const char* name) const noexcept;

 private:
  explicit TreeNode(Descriptor fd) noexcept : fd_(std::move(fd)) {}
  int create_by(const char* path, int flags, mode_t mode, Descriptor* opened) const noexcept;

  Descriptor fd_;
};

}  // namespace aprime::os
