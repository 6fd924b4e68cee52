#include "host/mount/inode_table.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <cassert>
#include <chrono>

namespace aprime::mount {
namespace {

constexpr std::chrono::milliseconds kRoomPatience{50};
constexpr std::size_t kReclaimedAtOnceMax = 512;
constexpr std::size_t kMissingMax = 4096;

std::size_t half_of_descriptors() noexcept {
  ::rlimit limit{};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur / 2 : kReclaimedAtOnceMax;
}

}  // namespace

InodeTable::InodeTable(os::TreeNode root)
    : root_(std::make_unique<Inode>(std::move(root), os::FileIdentity{})), crowd_(half_of_descriptors()) {}

Inode& InodeTable::remember(os::TreeNode node, const struct ::stat& attributes) {
  const os::FileIdentity identity{attributes.st_dev, attributes.st_ino};
  const sync::Lock lock(mutex_);
  std::shared_ptr<Inode>& known = known_[identity];
  if (known == nullptr) {
    try {
      known = std::make_shared<Inode>(std::move(node), identity);
      known->by_age = oldest_first_.insert(oldest_first_.end(), known.get());
    } catch (...) {
      known_.erase(identity);
      throw;
    }
    if (known_.size() > crowd_) ask_for_room();
  } else {
    oldest_first_.splice(oldest_first_.end(), oldest_first_, known->by_age);
  }
  known->lookups += 1;
  return *known;
}

std::shared_ptr<Inode> InodeTable::find(const os::FileIdentity& identity) noexcept {
  const sync::Lock lock(mutex_);
  const auto at = known_.find(identity);
  return at == known_.end() ? nullptr : at->second;
}

const Inode* InodeTable::address_of(const os::FileIdentity& identity) noexcept {
  const sync::Lock lock(mutex_);
  const auto at = known_.find(identity);
  return at == known_.end() ? nullptr : at->second.get();
}

std::vector<os::FileIdentity> InodeTable::stored_to() {
  std::vector<os::FileIdentity> found;
  const sync::Lock lock(mutex_);
  for (const auto& [identity, inode] : known_)
    if (inode->may_be_stored_to()) found.push_back(identity);
  return found;
}

void InodeTable::forget(Inode& inode, std::uint64_t lookups) noexcept {
  if (&inode == root_.get()) return;  // the kernel never looked it up
  std::shared_ptr<Inode> gone;        // its descriptor is closed without the lock
  {
    const sync::Lock lock(mutex_);
    assert(inode.lookups >= lookups);
    inode.lookups -= lookups;
    if (inode.lookups > 0) return;
    oldest_first_.erase(inode.by_age);
    const auto at = known_.find(inode.identity);
    gone = std::move(at->second);
    known_.erase(at);
  }
  gone.reset();
  room_made_.notify_all();
}

void InodeTable::note_missing(const Inode& directory, std::string_view name) {
  if (&directory == root_.get()) return;  // which is kept anyhow
  const sync::Lock lock(mutex_);
  // Nobody asks the kernel any more.
  if (is_reclaim_ended_) return;
  missing_.emplace(&directory, name);
  if (missing_.size() > kMissingMax) room_wanted_.notify_one();
}

void InodeTable::note_present(const Inode& directory, std::string_view name) noexcept try {
  const sync::Lock lock(mutex_);
  if (!missing_.empty()) missing_.erase({&directory, std::string(name)});
} catch (const std::bad_alloc&) {
  // Then the kernel forgets a name that there is, and looks it up again.
}

bool InodeTable::is_crowded() noexcept {
  const sync::Lock lock(mutex_);
  return known_.size() > crowd_;
}

void InodeTable::ask_for_room() noexcept {
  is_room_wanted_ = true;
  room_wanted_.notify_one();
}

bool InodeTable::make_room() noexcept {
  const sync::Lock lock(mutex_);
  if (is_reclaim_ended_) return false;
  ask_for_room();
  room_made_.wait_for(mutex_, kRoomPatience);
  return true;
}

bool InodeTable::wait_to_reclaim(Reclaimed* what) {
  what->oldest.clear();
  what->oldest.reserve(kReclaimedAtOnceMax);
  what->missing.clear();
  const sync::Lock lock(mutex_);
  while (!is_room_wanted_ && missing_.size() <= kMissingMax && !is_reclaim_ended_) room_wanted_.wait(mutex_);
  what->missing.reserve(missing_.size());
  while (!missing_.empty()) what->missing.push_back(std::move(missing_.extract(missing_.begin()).value()));
  if (!std::exchange(is_room_wanted_, false)) return !is_reclaim_ended_;
  const std::size_t count = std::min({kReclaimedAtOnceMax, crowd_ / 8 + 1, known_.size()});
  while (what->oldest.size() < count) {
    what->oldest.push_back(oldest_first_.front());
    oldest_first_.splice(oldest_first_.end(), oldest_first_, oldest_first_.begin());
  }
  return !is_reclaim_ended_;
}

void InodeTable::end_reclaim() noexcept {
  const sync::Lock lock(mutex_);
  is_reclaim_ended_ = true;
  missing_.clear();
  room_wanted_.notify_one();
}

}  // namespace aprime::mount
