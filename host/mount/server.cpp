#include "host/mount/server.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <exception>

#include "host/os/mount_point.hpp"

namespace aprime::mount {
namespace {

void start(void*, fuse_conn_info* connection) {
  // Requests that were waiting in the kernel for others of their kind could keep out those that these wait
  // for.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_ASYNC_DIO);
  // One way to cut a file short: as a change of its attributes.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_ATOMIC_O_TRUNC);
  // Replies are made in memory.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE);
  // Only pages for mmap are read by the kernel on its own account: one by one, as they are touched, so that
  // none is taken from its owner for a guess.
  connection->max_readahead = 0;
}

fuse_lowlevel_ops make_operations() noexcept {
  fuse_lowlevel_ops table{};
  table.init = start;
  add_attribute_operations(table);
  add_directory_operations(table);
  add_file_operations(table);
  add_tree_operations(table);
  return table;
}

}  // namespace

Server::Server(std::string source, std::string mountpoint, const MountOptions& options)
    : process_(::getpid()),
      source_path_(std::move(source)),
      mountpoint_(std::move(mountpoint)),
      source_(os::TreeNode::open_root(source_path_)),
      session_(std::in_place, source_path_, mountpoint_, options, make_operations(), &source_),
      workers_(session_->fuse()) {
  workers_.start();
}

Server::~Server() { unmount(); }

bool Server::is_own_process() const noexcept { return ::getpid() == process_; }

void Server::write_stored_pages() const noexcept {
  // Served by the workers, of whom the caller is none.
  const os::Descriptor root(::open(mountpoint_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct ::stat s {};
  if (!root || ::fstat(root.get(), &s) != 0) return;
  static_cast<void>(::syncfs(root.get()));
}

void Server::unmount() noexcept {
  const sync::Lock lock(unmount_mutex_);
  if (is_unmounted_) return;
  is_unmounted_ = true;
  bool is_detached = false;
  try {
    const os::MountedThere found = os::mounted_at(mountpoint_, kFileSystemType);
    is_detached = found == os::MountedThere::nothing;
    if (found == os::MountedThere::ours) {
      write_stored_pages();
      int error = os::unmount_at(mountpoint_, os::Detach::when_idle);
      if (error != 0) error = os::unmount_at(mountpoint_, os::Detach::now);
      is_detached = error == 0;
    }
  } catch (const std::exception&) {
    // No memory to look; the session's end unmounts as well.
  }
  workers_.stop();
  if (is_detached) session_->was_unmounted();
  session_.reset();
}

}  // namespace aprime::mount
