#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "host/engine/coherent_file.hpp"
#include "host/mount/serving_gate.hpp"
#include "host/os/tree_node.hpp"
#include "host/sync/mutex.hpp"

namespace aprime::mount {

/// An object of the source tree that the kernel knows. Lives from its first lookup until the kernel has
/// forgotten every one of them, which is after the last open file on it was closed.
struct Inode {
  Inode(os::TreeNode held, os::FileIdentity named) noexcept : node(std::move(held)), identity(named) {}

  const os::TreeNode node;
  const os::FileIdentity identity;

  /// Passed by every request for the bytes of a regular file; closed while it changes who serves them.
  mutable ServingGate gate;
  /// Serves the bytes of a file that the runtime gives to devices; null for all others, whose bytes are those
  /// of the source. Changed with `gate` closed.
  std::shared_ptr<engine::CoherentFile> coherent;
  /// Whether the runtime has been asked who serves a regular file. A file that is mapped later is attached by
  /// the runtime, which finds the inode.
  std::atomic<bool> is_settled{false};

  /// Each open file by which a program may map it and store to it has a copy; it may be closed when the
  /// inode is gone.
  const std::shared_ptr<const char> stored_by = std::make_shared<const char>();
  /// If not, the kernel has no page of it that it would have to write back: it does so before the last of
  /// those files is closed.
  bool may_be_stored_to() const noexcept { return stored_by.use_count() > 1; }

 private:
  friend class InodeTable;
  // Guarded by the table's mutex.
  std::uint64_t lookups = 0;
  std::list<const Inode*>::iterator by_age;
};

/// The objects that the kernel knows, one for each (device, inode number): every name of a file leads to the
/// same one. Each holds a descriptor, so an inode number cannot come to mean another file while it is here.
/// Thread-safe.
class InodeTable {
 public:
  explicit InodeTable(os::TreeNode root);

  Inode& root() noexcept { return *root_; }
  /// The inode of an object just looked up, with one lookup more. \throws std::bad_alloc
  Inode& remember(os::TreeNode node, const struct ::stat& attributes);
  /// Null if the kernel does not know it. The root is not found.
  std::shared_ptr<Inode> find(const os::FileIdentity& identity) noexcept;
  /// Where the inode is that find() would find. It may cease to be at any time, so its address is good for
  /// asking the kernel about it only. Usable inside a signal handler, which must not be left with the last
  /// hold on an inode: descriptors are closed then, and memory freed.
  const Inode* address_of(const os::FileIdentity& identity) noexcept;
  /// All that may be stored to. \throws std::bad_alloc
  std::vector<os::FileIdentity> stored_to();
  /// Takes back `lookups` of them. \pre `inode` is no longer used if these were the last
  void forget(Inode& inode, std::uint64_t lookups) noexcept;

  /// To be called when the kernel is told that a directory has no such entry. It remembers that, too, and
  /// keeps the directory for it. \throws std::bad_alloc
  void note_missing(const Inode& directory, std::string_view name);
  /// There may be one now.
  void note_present(const Inode& directory, std::string_view name) noexcept;

  /// Whether those that are known have more than half of the descriptors that this process may have. The
  /// other half is for open files.
  bool is_crowded() noexcept;
  /// Has some forgotten, and waits a moment for one of them. False if nobody can have them forgotten.
  bool make_room() noexcept;
  /// An entry that a directory has not. As those of address_of(), the directory is good for asking the kernel
  /// only.
  using MissingEntry = std::pair<const Inode*, std::string>;
  /// What the kernel may forget.
  struct Reclaimed {
    /// Before the inodes, some of which it keeps for these.
    std::vector<MissingEntry> missing;
    /// Those looked up longest ago, which are the last to be told again.
    std::vector<const Inode*> oldest;
  };
  /// For whoever has it forgotten: waits until it is crowded, somebody makes room, or there are many missing
  /// entries. False after end_reclaim(). \throws std::bad_alloc
  bool wait_to_reclaim(Reclaimed* what);
  void end_reclaim() noexcept;

 private:
  struct Hash {
    std::size_t operator()(const os::FileIdentity& id) const noexcept {
      return static_cast<std::size_t>((id.inode ^ id.device << 48) * 0x9E3779B97F4A7C15u);
    }
  };

  struct MissingHash {
    std::size_t operator()(const MissingEntry& e) const noexcept {
      return std::hash<std::string>{}(e.second) ^ std::hash<const Inode*>{}(e.first);
    }
  };

  void ask_for_room() noexcept APRIME_REQUIRES(mutex_);

  const std::unique_ptr<Inode> root_;
  const std::size_t crowd_;
  sync::Mutex mutex_{sync::LockRank::inodes};
  std::unordered_map<os::FileIdentity, std::shared_ptr<Inode>, Hash> known_ APRIME_GUARDED_BY(mutex_);
  /// The same, by their last lookup; but those that were told in order to be forgotten begin anew.
  std::list<const Inode*> oldest_first_ APRIME_GUARDED_BY(mutex_);
  std::unordered_set<MissingEntry, MissingHash> missing_ APRIME_GUARDED_BY(mutex_);
  bool is_room_wanted_ APRIME_GUARDED_BY(mutex_) = false;
  bool is_reclaim_ended_ APRIME_GUARDED_BY(mutex_) = false;
  std::condition_variable_any room_wanted_;
  std::condition_variable_any room_made_;
};

}  // namespace aprime::mount
