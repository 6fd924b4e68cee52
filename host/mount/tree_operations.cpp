// Names: look up, create, remove, rename.

#include <fcntl.h>

#include <cerrno>

#include "host/mount/caller.hpp"
#include "host/mount/session.hpp"
#include "host/mount/source.hpp"

namespace aprime::mount {
namespace {

/// Creates an object with the caller's rights and replies with its entry.
template <class Fn>
void create_entry(fuse_req_t request, fuse_ino_t parent, const char* name, Fn&& create) noexcept {
  answer(request, [&](Source& source) {
    Inode& directory = source.inode(parent);
    const Caller caller(request);
    int error = caller.as_caller([&] { return create(source, directory.node); });
    if (error != 0) return error;
    fuse_entry_param entry{};
    error = source.with_room([&] { return source.look_up(directory, name, &entry); });
    return error != 0 ? error : reply_entry(request, source, entry);
  });
}

/// Of a file that was just created: who is told that this failed expects nothing there.
class RemoveUnlessKept {
 public:
  RemoveUnlessKept(const os::TreeNode& directory, const char* name) noexcept
      : directory_(directory), name_(name) {}
  ~RemoveUnlessKept() {
    if (name_ != nullptr) static_cast<void>(directory_.remove(name_));
  }
  RemoveUnlessKept(const RemoveUnlessKept&) = delete;
  RemoveUnlessKept& operator=(const RemoveUnlessKept&) = delete;
  void keep() noexcept { name_ = nullptr; }

 private:
  const os::TreeNode& directory_;
  const char* name_;
};

void look_up(fuse_req_t request, fuse_ino_t parent, const char* name) {
  answer(request, [&](Source& source) {
    fuse_entry_param entry{};
    const int error = source.with_room([&] { return source.look_up(source.inode(parent), name, &entry); });
    return error != 0 ? error : reply_entry(request, source, entry);
  });
}

void forget(fuse_req_t request, fuse_ino_t id, std::uint64_t lookups) {
  auto& source = *static_cast<Source*>(::fuse_req_userdata(request));
  source.inodes().forget(source.inode(id), lookups);
  ::fuse_reply_none(request);
}

void forget_many(fuse_req_t request, std::size_t count, fuse_forget_data* forgets) {
  auto& source = *static_cast<Source*>(::fuse_req_userdata(request));
  for (std::size_t i = 0; i < count; ++i)
    source.inodes().forget(source.inode(forgets[i].ino), forgets[i].nlookup);
  ::fuse_reply_none(request);
}

void make_directory(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  create_entry(request, parent, name,
               [&](Source&, const os::TreeNode& directory) { return directory.make_directory(name, mode); });
}

void make_node(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
  create_entry(request, parent, name, [&](Source&, const os::TreeNode& directory) {
    return directory.make_node(name, mode, device);
  });
}

void make_symlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
  create_entry(request, parent, name,
               [&](Source&, const os::TreeNode& directory) { return directory.make_symlink(name, target); });
}

void link(fuse_req_t request, fuse_ino_t id, fuse_ino_t new_parent, const char* new_name) {
  answer(request, [&](Source& source) {
    Inode& directory = source.inode(new_parent);
    // Not as the caller: the name of another's file gets no new owner, and the kernel has checked the rest.
    int error = directory.node.link(new_name, source.inode(id).node);
    if (error != 0) return error;
    fuse_entry_param entry{};
    error = source.with_room([&] { return source.look_up(directory, new_name, &entry); });
    return error != 0 ? error : reply_entry(request, source, entry);
  });
}

/// `error`: of the removal. The kernel remembers that there is nothing of the name.
int removed(Source& source, fuse_ino_t parent, const char* name, int error) {
  if (error == 0) source.inodes().note_missing(source.inode(parent), name);
  return error;
}

void remove(fuse_req_t request, fuse_ino_t parent, const char* name) {
  answer(request, [&](Source& source) {
    return removed(source, parent, name, source.inode(parent).node.remove(name));
  });
}

void remove_directory(fuse_req_t request, fuse_ino_t parent, const char* name) {
  answer(request, [&](Source& source) {
    return removed(source, parent, name, source.inode(parent).node.remove_directory(name));
  });
}

void rename(fuse_req_t request, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
            const char* new_name, unsigned flags) {
  answer(request, [&](Source& source) {
    Inode& target = source.inode(new_parent);
    const int error = source.inode(parent).node.rename(name, target.node, new_name, flags);
    if (error == 0) source.inodes().note_present(target, new_name);
    return error;
  });
}

void create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* info) {
  answer(request, [&](Source& source) {
    Inode& directory = source.inode(parent);
    const Caller caller(request);
    os::Descriptor opened;
    os::TreeNode created;
    const int flags = backing_flags(info->flags);
    const int exclusive = info->flags & O_EXCL;
    int error = source.with_room([&] {
      return caller.as_caller([&] {
        return name == kUnnamed ? directory.node.create_unnamed(flags | exclusive, mode, &opened)
                                : directory.node.create(name, flags, mode, &opened);
      });
    });
    // Somebody has put something there since the kernel looked: it shall look again, and open that as it
    // opens what was there before, with its checks and truncation.
    if (error == EEXIST && exclusive == 0) return ESTALE;
    if (error != 0) return error;
    RemoveUnlessKept created_name(directory.node, name != kUnnamed ? name : nullptr);
    fuse_entry_param entry{};
    error = source.with_room([&] { return os::TreeNode::hold(opened, &created); });
    if (error == 0) error = source.remember(std::move(created), &entry);
    if (error != 0) return error;
    created_name.keep();
    source.inodes().note_present(directory, name);
    return reply_create(request, source, entry, std::move(opened), *info);
  });
}

}  // namespace

void add_tree_operations(fuse_lowlevel_ops& table) noexcept {
  table.lookup = look_up;
  table.forget = forget;
  table.forget_multi = forget_many;
  table.mkdir = make_directory;
  table.mknod = make_node;
  table.symlink = make_symlink;
  table.link = link;
  table.unlink = remove;
  table.rmdir = remove_directory;
  table.rename = rename;
  table.create = create;
}

}  // namespace aprime::mount
