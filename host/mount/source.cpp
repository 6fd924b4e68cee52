#include "host/mount/source.hpp"

#include <sys/sysmacros.h>

#include <cerrno>

#include "host/os/failure.hpp"

namespace aprime::mount {

namespace {

std::uint64_t device_of(const Inode& inode) {
  struct ::stat attributes {};
  const int error = inode.node.stat(&attributes);
  if (error != 0) throw os::failure(Errc::cannot_open, "cannot look at the source", error);
  return attributes.st_dev;
}

}  // namespace

Source::Source(os::TreeNode root, std::shared_ptr<engine::RuntimeState> runtime)
    : runtime_(std::move(runtime)), inodes_(std::move(root)), root_device_(device_of(inodes_.root())) {}

std::uint64_t Source::shown_number(std::uint64_t device, std::uint64_t inode) const noexcept {
  if (device == root_device_) return inode;
  // The kernel's device numbers have 20 bits and 12.
  return inode ^ std::uint64_t{minor(device)} << 44 ^ std::uint64_t{major(device)} << 32;
}

int Source::look_up(const Inode& parent, const char* name, fuse_entry_param* entry) {
  os::TreeNode node;
  const int error = parent.node.look_up(name, &node);
  if (error == ENOENT) inodes_.note_missing(parent, name);
  if (error != 0) return error;
  inodes_.note_present(parent, name);
  return remember(std::move(node), entry);
}

int Source::remember(os::TreeNode node, fuse_entry_param* entry) {
  const int error = node.stat(&entry->attr);
  if (error != 0) return error;
  Inode& inode = inodes_.remember(std::move(node), entry->attr);
  entry->ino = id_of(inode);
  entry->attr.st_ino = shown_number(inode.identity.device, inode.identity.inode);
  try {
    if (S_ISREG(entry->attr.st_mode) && !inode.is_settled.load()) settle(inode);
  } catch (...) {
    take_back(*entry);
    throw;
  }
  entry->attr_timeout = kBelieveSeconds;
  entry->entry_timeout = kBelieveSeconds;
  return 0;
}

/// Also by whoever looks the file up while another does this for the first time: its reply must not lead a
/// program past the runtime.
void Source::settle(Inode& inode) {
  runtime_->with_file(inode.identity, [&](const std::shared_ptr<engine::CoherentFile>& file) {
    if (inode.coherent == file) return;
    const ServingGate::Closed closed(inode.gate);
    inode.coherent = file;
  });
  inode.is_settled.store(true);
}

void Source::keep(std::unique_ptr<Opened> opened) {
  const Opened* const key = opened.get();
  const sync::Lock lock(opened_mutex_);
  opened_[key] = std::move(opened);
}

void Source::close(const Opened& opened) noexcept {
  std::unique_ptr<Opened> gone;  // is closed without the lock
  const sync::Lock lock(opened_mutex_);
  const auto at = opened_.find(&opened);
  gone = std::move(at->second);
  opened_.erase(at);
}

int error_of(const Status& status) noexcept {
  if (status.is_ok()) return 0;
  if (status.system_error != 0) return status.system_error;
  switch (status.code) {
    case Errc::no_space: return ENOSPC;
    case Errc::access_denied: return EBADF;
    case Errc::resources:
    case Errc::device_memory: return ENOMEM;
    case Errc::invalid_argument: return EINVAL;
    default: return EIO;
  }
}

int reply_entry(fuse_req_t request, Source& source, const fuse_entry_param& entry) noexcept {
  // Fails if the caller was killed meanwhile.
  if (::fuse_reply_entry(request, &entry) != 0) source.take_back(entry);
  return kReplied;
}

}  // namespace aprime::mount
