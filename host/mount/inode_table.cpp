#include "host/mount/inode_table.hpp"

#include <algorithm>
#include <cassert>

namespace aprime::mount {

InodeTable::InodeTable(os::TreeNode root)
    : root_(std::make_unique<Inode>(std::move(root), os::FileIdentity{}, true)) {}

Inode& InodeTable::remember(os::TreeNode node, const struct ::stat& attributes) {
  const os::FileIdentity identity{attributes.st_dev, attributes.st_ino};
  const sync::Lock lock(mutex_);
  std::shared_ptr<Inode>& known = known_[identity];
  if (known == nullptr) {
    try {
      known = std::make_shared<Inode>(std::move(node), identity, S_ISDIR(attributes.st_mode));
      size_.store(known_.size(), std::memory_order_relaxed);
    } catch (...) {
      known_.erase(identity);
      throw;
    }
  }
  known->lookups += 1;
  known->looked_up_at = ++lookups_;
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

std::vector<std::shared_ptr<Inode>> InodeTable::take_oldest(std::size_t count) {
  struct Candidate {
    std::uint64_t looked_up_at;
    std::shared_ptr<Inode> inode;
  };
  std::vector<Candidate> all;
  {
    const sync::Lock lock(mutex_);
    all.reserve(known_.size());
    for (const auto& [identity, inode] : known_)
      if (!inode->is_directory) all.push_back({inode->looked_up_at, inode});
  }
  const auto end = all.begin() + static_cast<std::ptrdiff_t>(std::min(count, all.size()));
  std::nth_element(all.begin(), end, all.end(),
                   [](const Candidate& a, const Candidate& b) { return a.looked_up_at < b.looked_up_at; });
  std::vector<std::shared_ptr<Inode>> found;
  for (auto at = all.begin(); at != end; ++at) found.push_back(std::move(at->inode));
  const sync::Lock lock(mutex_);
  for (const std::shared_ptr<Inode>& inode : found) inode->looked_up_at = ++lookups_;
  return found;
}

void InodeTable::forget(Inode& inode, std::uint64_t lookups) noexcept {
  if (&inode == root_.get()) return;  // the kernel never looked it up
  std::shared_ptr<Inode> gone;        // its descriptor is closed without the lock
  const sync::Lock lock(mutex_);
  assert(inode.lookups >= lookups);
  inode.lookups -= lookups;
  if (inode.lookups > 0) return;
  const auto at = known_.find(inode.identity);
  gone = std::move(at->second);
  known_.erase(at);
  size_.store(known_.size(), std::memory_order_relaxed);
}

}  // namespace aprime::mount
