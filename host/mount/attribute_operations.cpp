// Attributes, extended attributes, and the target of a symbolic link.

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <string_view>
#include <vector>

#include "host/mount/caller.hpp"
#include "host/mount/coherent_io.hpp"
#include "host/mount/source.hpp"

namespace aprime::mount {
namespace {

int reply_attributes(fuse_req_t request, const Source& source, const Inode& inode) noexcept {
  struct ::stat attributes {};
  const int error = inode.node.stat(&attributes);
  if (error != 0) return error;
  attributes.st_ino = source.shown_number(attributes.st_dev, attributes.st_ino);
  ::fuse_reply_attr(request, &attributes, kBelieveSeconds);
  return kReplied;
}

void get_attributes(fuse_req_t request, fuse_ino_t id, fuse_file_info*) {
  answer(request, [&](Source& source) { return reply_attributes(request, source, source.inode(id)); });
}

std::array<timespec, 2> times_to_set(const struct ::stat& wanted, int what) noexcept {
  std::array<timespec, 2> times{{{0, UTIME_OMIT}, {0, UTIME_OMIT}}};
  if (what & FUSE_SET_ATTR_ATIME_NOW)
    times[0].tv_nsec = UTIME_NOW;
  else if (what & FUSE_SET_ATTR_ATIME)
    times[0] = wanted.st_atim;
  if (what & FUSE_SET_ATTR_MTIME_NOW)
    times[1].tv_nsec = UTIME_NOW;
  else if (what & FUSE_SET_ATTR_MTIME)
    times[1] = wanted.st_mtim;
  return times;
}

/// `info`: of the file that the request came by; null if it came by a name.
int set_attributes_of(const Inode& inode, const struct ::stat& wanted, int what, const fuse_file_info* info) {
  const os::TreeNode& node = inode.node;
  constexpr int kTimes =
      FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW;
  int error = 0;
  // The owner first: a change of it clears set-user-id bits that the mode may set.
  if (what & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
    error = node.set_owner(what & FUSE_SET_ATTR_UID ? wanted.st_uid : static_cast<uid_t>(-1),
                           what & FUSE_SET_ATTR_GID ? wanted.st_gid : static_cast<gid_t>(-1));
  if (error == 0 && what & FUSE_SET_ATTR_MODE) error = node.set_mode(wanted.st_mode);
  if (error == 0 && what & FUSE_SET_ATTR_SIZE)
    error = set_size(inode, info != nullptr ? &handle_of(*info) : nullptr, wanted.st_size);
  if (error == 0 && what & kTimes) error = node.set_times(times_to_set(wanted, what));
  return error;
}

void set_attributes(fuse_req_t request, fuse_ino_t id, struct ::stat* wanted, int what,
                    fuse_file_info* info) {
  answer(request, [&](Source& source) {
    const Inode& inode = source.inode(id);
    // What gets to the source later would change a time that is set now. What cannot get there does.
    const int times = what & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW | FUSE_SET_ATTR_SIZE);
    if (times == FUSE_SET_ATTR_MTIME) static_cast<void>(bring_home(source, inode));
    const int error = set_attributes_of(inode, *wanted, what, info);
    return error != 0 ? error : reply_attributes(request, source, inode);
  });
}

void read_link(fuse_req_t request, fuse_ino_t id) {
  answer(request, [&](Source& source) {
    std::string target;
    const int error = source.inode(id).node.read_link(&target);
    if (error != 0) return error;
    ::fuse_reply_readlink(request, target.c_str());
    return kReplied;
  });
}

/// Replies to a request for a value, or for its size if it gives no room.
template <class Fn>
int reply_value(fuse_req_t request, std::size_t room, Fn&& get) {
  std::vector<char> value(room);
  std::size_t size = room;
  const int error = get(value.data(), &size);
  if (error != 0) return error;
  if (room == 0)
    ::fuse_reply_xattr(request, size);
  else
    ::fuse_reply_buf(request, value.data(), size);
  return kReplied;
}

bool is_acl(std::string_view name) noexcept { return name.starts_with("system.posix_acl_"); }

void get_xattr(fuse_req_t request, fuse_ino_t id, const char* name, std::size_t room) {
  answer(request, [&](Source& source) {
    const os::TreeNode& node = source.inode(id).node;
    return reply_value(request, room, [&](char* value, std::size_t* size) {
      const int error = node.get_xattr(name, value, size);
      // The kernel would refuse what it cannot check; a source that has no ACLs has none here.
      return error == EOPNOTSUPP && is_acl(name) ? ENODATA : error;
    });
  });
}

/// Those that are shown to root only. (Values the kernel guards itself.)
bool is_trusted(std::string_view name) noexcept { return name.starts_with("trusted."); }

int list_names(const os::TreeNode& node, std::vector<char>* names) {
  for (;;) {
    std::size_t size = 0;
    if (const int error = node.list_xattr(nullptr, &size); error != 0) return error;
    names->resize(size);
    const int error = size == 0 ? 0 : node.list_xattr(names->data(), &size);
    if (error == ERANGE) continue;  // there are more by now
    names->resize(size);
    return error;
  }
}

void list_xattr(fuse_req_t request, fuse_ino_t id, std::size_t room) {
  answer(request, [&](Source& source) {
    const bool is_root = ::fuse_req_ctx(request)->uid == 0;
    std::vector<char> names;
    if (const int error = list_names(source.inode(id).node, &names); error != 0) return error;
    std::string shown;
    for (auto at = names.begin(); at != names.end();) {
      const auto end = std::find(at, names.end(), '\0') + 1;
      const std::string_view name(&*at, static_cast<std::size_t>(end - at));
      if (is_root || !is_trusted(name)) shown += name;
      at = end;
    }
    if (room != 0 && room < shown.size()) return ERANGE;
    if (room == 0)
      ::fuse_reply_xattr(request, shown.size());
    else
      ::fuse_reply_buf(request, shown.data(), shown.size());
    return kReplied;
  });
}

void set_xattr(fuse_req_t request, fuse_ino_t id, const char* name, const char* value, std::size_t size,
               int flags) {
  answer(request, [&](Source& source) {
    const os::TreeNode& node = source.inode(id).node;
    if (!is_acl(name)) return node.set_xattr(name, {value, size}, flags);
    // As its owner: who is not of its group loses the set-group-id bit.
    return Caller(request).as_caller([&] { return node.set_xattr(name, {value, size}, flags); });
  });
}

void remove_xattr(fuse_req_t request, fuse_ino_t id, const char* name) {
  answer(request, [&](Source& source) { return source.inode(id).node.remove_xattr(name); });
}

void stat_fs(fuse_req_t request, fuse_ino_t id) {
  answer(request, [&](Source& source) {
    struct ::statvfs figures {};
    const int error = source.inode(id).node.stat_fs(&figures);
    if (error != 0) return error;
    ::fuse_reply_statfs(request, &figures);
    return kReplied;
  });
}

}  // namespace

void add_attribute_operations(fuse_lowlevel_ops& table) noexcept {
  table.getattr = get_attributes;
  table.setattr = set_attributes;
  table.readlink = read_link;
  table.getxattr = get_xattr;
  table.listxattr = list_xattr;
  table.setxattr = set_xattr;
  table.removexattr = remove_xattr;
  table.statfs = stat_fs;
}

}  // namespace aprime::mount
