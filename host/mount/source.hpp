#pragma once

#include <cerrno>
#include <memory>
#include <new>
#include <unordered_map>

#include "aprime/error.hpp"
#include "host/engine/runtime_state.hpp"
#include "host/mount/fuse.hpp"
#include "host/mount/inode_table.hpp"

namespace aprime::mount {

/// What a program has open. The kernel keeps its address, as the file handle.
class Opened {
 public:
  virtual ~Opened() = default;
};

/// The tree that a mount shows, as its operations see it.
class Source {
 public:
  /// \throws Error(cannot_open)
  Source(os::TreeNode root, std::shared_ptr<engine::RuntimeState> runtime);

  engine::RuntimeState& runtime() const noexcept { return *runtime_; }

  InodeTable& inodes() noexcept { return inodes_; }
  Inode& inode(fuse_ino_t id) noexcept {
    return id == FUSE_ROOT_ID ? inodes_.root() : *reinterpret_cast<Inode*>(id);
  }
  /// Keeps `opened` until the program has closed it, or the mount ends. \throws std::bad_alloc
  void keep(std::unique_ptr<Opened> opened);
  void close(const Opened& opened) noexcept;
  /// The inode number to show for one of `device`. Several file systems may be mounted below the root, all of
  /// which have one device on the mount: those that are not the root's have their device's number in the high
  /// bits, which theirs hardly reach.
  std::uint64_t shown_number(std::uint64_t device, std::uint64_t inode) const noexcept;
  static fuse_ino_t id_of(const Inode& inode) noexcept { return reinterpret_cast<fuse_ino_t>(&inode); }

  /// Looks up an entry and remembers it, for a reply that gives it to the kernel. Returns 0 or an errno.
  int look_up(const Inode& parent, const char* name, fuse_entry_param* entry);
  /// Fills `entry` for the object, which is remembered. Returns 0 or an errno.
  int remember(os::TreeNode node, fuse_entry_param* entry);
  /// As `act`, which returns 0 or an errno: where it lacks a descriptor, again when the kernel has been asked
  /// to forget what nobody uses.
  template <class Fn>
  int with_room(Fn&& act) {
    int error = act();
    for (int tries = 0; error == EMFILE && tries < kTriesMax && inodes_.make_room(); ++tries) error = act();
    return error;
  }
  /// The kernel did not take the entry.
  void take_back(const fuse_entry_param& entry) noexcept { inodes_.forget(inode(entry.ino), 1); }

 private:
  static constexpr int kTriesMax = 8;

  void settle(Inode& inode);

  /// Outlives the inodes: after an unmount they may be the last to hold a file whose bytes devices have.
  const std::shared_ptr<engine::RuntimeState> runtime_;
  InodeTable inodes_;
  const std::uint64_t root_device_;
  sync::Mutex opened_mutex_{sync::LockRank::inodes};
  std::unordered_map<const Opened*, std::unique_ptr<Opened>> opened_ APRIME_GUARDED_BY(opened_mutex_);
};

/// How long the kernel may believe names and attributes, in seconds. Changes made through the mount are seen
/// at once all the same; those made in the source directly, after this time.
inline constexpr double kBelieveSeconds = 1.0;

/// The errno by which a program is told; 0 if it is ok.
int error_of(const Status& status) noexcept;

/// Given back by the function of `answer` that has replied itself.
inline constexpr int kReplied = -1;

/// Runs one operation, which returns 0 or an errno for the reply, or kReplied. A request is always replied
/// to. After its reply, an operation touches no inode and no open file: the kernel may have forgotten both.
template <class Fn>
void answer(fuse_req_t request, Fn&& operation) noexcept {
  int error = 0;
  try {
    error = operation(*static_cast<Source*>(::fuse_req_userdata(request)));
  } catch (const std::bad_alloc&) {
    error = ENOMEM;
  } catch (const Error& why) {
    error = error_of({why.code(), why.system_error(), {}});
  } catch (const std::exception&) {
    error = EIO;
  }
  if (error != kReplied) ::fuse_reply_err(request, error);
}

/// Replies with an entry that was remembered for it.
int reply_entry(fuse_req_t request, Source& source, const fuse_entry_param& entry) noexcept;

/// The flags to open the backing file with for a program that opens with `flags`. Where an append lands is
/// decided write by write; O_DIRECT would demand alignment of our own buffers; creation and truncation have
/// had their turn.
int backing_flags(int flags) noexcept;
/// Replies to a creation with an open file on `opened`.
int reply_create(fuse_req_t request, Source& source, const fuse_entry_param& entry, os::Descriptor opened,
                 fuse_file_info& info);
/// The object whose address the kernel keeps.
template <class T>
T& opened_as(const fuse_file_info& info) noexcept {
  return static_cast<T&>(*reinterpret_cast<Opened*>(info.fh));
}

// Each adds its operations to the table.
void add_attribute_operations(fuse_lowlevel_ops& table) noexcept;
void add_directory_operations(fuse_lowlevel_ops& table) noexcept;
void add_file_operations(fuse_lowlevel_ops& table) noexcept;
void add_tree_operations(fuse_lowlevel_ops& table) noexcept;

}  // namespace aprime::mount
