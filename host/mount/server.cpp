#include "host/mount/server.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <exception>

#include "aprime/version.hpp"
#include "host/engine/failure.hpp"
#include "host/mount/coherent_io.hpp"
#include "host/mount/protocol.hpp"
#include "host/os/acting_as.hpp"
#include "host/os/failure.hpp"
#include "host/os/mount_point.hpp"
#include "host/os/quiet_thread.hpp"

namespace aprime::mount {
namespace {

void start(void*, fuse_conn_info* connection) {
  connection->max_write = kTransferMax;
  // Requests that were waiting in the kernel for others of their kind could keep out those that these wait
  // for.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_ASYNC_DIO);
  // One way to cut a file short: as a change of its attributes.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_ATOMIC_O_TRUNC);
  // The kernel clears set-user-id bits itself, for whoever may not keep them. (Of root's daemon they would
  // survive what others write.) Only of exact writes it just tells us to.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_HANDLE_KILLPRIV);
  connection->want |= connection->capable & FUSE_CAP_POSIX_ACL;
  // A caller's mask is for the source's file system to apply: a default ACL of the directory takes its place.
  if (os::has_own_mode_mask()) connection->want |= connection->capable & FUSE_CAP_DONT_MASK;
  // What the kernel asks pages for goes from page to page; but the source's pages stay where they are.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_MOVE);
  connection->want |= connection->capable & FUSE_CAP_SPLICE_WRITE;
  // Pages that are written back are answered at once, but pages asked for may have to wait; the kernel counts
  // both against this limit, and some of the former may be what the latter wait for.
  connection->max_background = 65535;
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

Server::Server(std::shared_ptr<engine::RuntimeState> runtime, std::string source, std::string mountpoint,
               const MountOptions& options)
    : process_(::getpid()),
      source_path_(std::move(source)),
      mountpoint_(std::move(mountpoint)),
      source_(os::TreeNode::open_root(source_path_), std::move(runtime)),
      session_(std::in_place, source_path_, mountpoint_, options, make_operations(), &source_),
      workers_(session_->fuse()) {
  source_.runtime().add_mount(*this);
  try {
    workers_.start();
    // Served by the workers.
    struct ::stat s {};
    if (::stat(mountpoint_.c_str(), &s) == 0) device_.store(s.st_dev);
    start_calls(options);
    reclaimer_.emplace(source_.inodes(), *session_);
    ender_ = os::start_quiet_thread([this] {
      workers_.wait();
      unmount();
    });
  } catch (...) {
    source_.runtime().remove_mount();
    throw;
  }
}

void Server::start_calls(const MountOptions& options) {
  CallHandlers handlers;
  handlers.source = source_path_;
  handlers.mountpoint = mountpoint_;
  handlers.status = [this] { return status(); };
  handlers.map = [this](const std::string& path, Access access, const MapOptions& how) {
    return map(path, access, how);
  };
  handlers.has_ended = [this] { return session_->has_ended(); };
  handlers.serve = options.serve;
  calls_.emplace(device_.load(), std::move(handlers));
}

Server::~Server() {
  unmount();
  ender_.join();
}

bool Server::is_own_process() const noexcept { return ::getpid() == process_; }

void Server::recall(const os::FileIdentity& file, ByteRange range) noexcept {
  const Inode* const inode = source_.inodes().address_of(file);
  if (inode == nullptr) return;  // the kernel does not know it: it has no page of it
  // Fails only for an inode that the kernel has just forgotten, with its pages. If another has come in its
  // place since, that one's pages are taken, and asked for again.
  static_cast<void>(::fuse_lowlevel_notify_inval_inode(&session_->fuse(), Source::id_of(*inode),
                                                       static_cast<off_t>(range.first.value),
                                                       static_cast<off_t>(range.size.value)));
}

void Server::forget_attributes(const os::FileIdentity& file) noexcept {
  const Inode* const inode = source_.inodes().address_of(file);
  if (inode == nullptr) return;
  constexpr off_t kNoPages = -1;
  static_cast<void>(
      ::fuse_lowlevel_notify_inval_inode(&session_->fuse(), Source::id_of(*inode), kNoPages, 0));
}

void Server::attach(const std::shared_ptr<engine::CoherentFile>& file) {
  if (!keeps_pages_coherent())
    throw Error(Errc::cannot_open,
                fmt::format("'{}' cannot be mapped in a runtime that serves a mount: before Linux 6.16, the "
                            "kernel does not tell a mount when all that programs stored has reached it",
                            file->path()),
                file->path());
  const std::shared_ptr<Inode> inode = source_.inodes().find(file->file().identity());
  if (inode == nullptr) return;
  {
    const ServingGate::Closed closed(inode->gate);
    inode->coherent = file;
  }
  recall(inode->identity, engine::kWholeFile);
}

Status Server::detach(engine::CoherentFile& file) noexcept {
  const GranuleRange all{GranuleIndex{0}, file.directory().capacity()};
  const std::shared_ptr<Inode> inode = source_.inodes().find(file.file().identity());
  if (inode == nullptr) return file.write_back(all, engine::Patience::wait);
  const ServingGate::Closed closed(inode->gate);
  const Status status = file.write_back(all, engine::Patience::wait);
  if (status.is_ok()) inode->coherent = nullptr;
  return status;
}

Mapping Server::map(const std::string& path, Access access, const MapOptions& options) {
  const std::string shown = mountpoint_ + (mountpoint_ == "/" ? "" : "/") + path;
  const auto refuse = [&](const char* why, int error) {
    throw Error(Errc::cannot_open, fmt::format("cannot open '{}': {}", shown, why), shown, error);
  };
  os::TreeNode node;
  struct ::stat found {};
  int error = path.empty() ? EISDIR : source_.inodes().root().node.find(path, &node);
  if (error == 0) error = node.stat(&found);
  if (error == ELOOP) refuse("its path leads through a symbolic link, which is not followed", error);
  if (error == EXDEV) refuse("its path leads out of the mount; give one below it", error);
  if (error != 0) throw os::open_failure(shown, error, access);
  if (S_ISLNK(found.st_mode)) refuse("it is a symbolic link, which is not followed", ELOOP);
  return Mapping(source_.runtime().map(node.open_file(shown, access), access, options));
}

MountStatus Server::status() const {
  engine::RuntimeState& runtime = source_.runtime();
  MountStatus status;
  status.source = source_path_;
  status.mountpoint = mountpoint_;
  status.process = process_;
  status.version = library_version();
  status.devices = runtime.devices();
  status.stats = runtime.stats();
  const std::string root = source_path_ + (source_path_ == "/" ? "" : "/");
  for (FileStatus& file : runtime.report_files()) {
    if (!file.path.starts_with(root)) continue;
    file.path.erase(0, root.size());
    status.files.push_back(std::move(file));
  }
  return status;
}

MountMessage Server::copy_home() const {
  try {
    std::string path;
    const Status status = source_.runtime().copy_home(path);
    engine::throw_if_failed(status, path, "copy home at the end");
    return {kUnmount};
  } catch (const std::exception& error) {
    return error_message(error);
  }
}

bool Server::is_seen() const {
  const std::optional<os::MountEntry> topmost = os::mount_of(mountpoint_);
  return topmost && topmost->point == mountpoint_ && topmost->device == device_.load();
}

void Server::write_stored_pages() {
  // By recalls, which wait until the pages are written, as syncfs does not on FUSE. Served by the workers, of
  // whom the caller is none. Each goes through a file once, so that it ends, whatever is stored meanwhile.
  for (const os::FileIdentity& file : source_.inodes().stored_to()) recall(file, engine::kWholeFile);
}

void Server::unmount() noexcept {
  const sync::Lock lock(unmount_mutex_);
  if (is_unmounted_) return;
  is_unmounted_ = true;
  // While requests are served still: calls may wait for them.
  calls_->stop();
  reclaimer_.reset();
  bool is_detached = session_->has_ended();
  try {
    // Also of programs that have gone on since it was unmounted.
    if (!is_detached) write_stored_pages();
    // At its place, or on top of it, may be another mount, whose programs are not to be disturbed.
    is_detached = is_detached || !is_seen();
    if (!is_detached) {
      int error = os::unmount_at(mountpoint_, os::Detach::when_idle);
      if (error != 0) error = os::unmount_at(mountpoint_, os::Detach::now);
      is_detached = error == 0;
    }
  } catch (const std::exception&) {
    // No memory to look; the session's end unmounts as well.
  }
  // Recalls in work are served to their end; later ones have no program's pages to take.
  source_.runtime().remove_mount();
  workers_.stop();
  if (is_detached) session_->was_unmounted();
  session_.reset();
  try {
    calls_->tell_end(copy_home());
  } catch (const std::exception&) {
    // No memory for the answer: they see that the connection has ended.
  }
  // Not before: who mounts the same source again would have written over what it writes.
  calls_.reset();
}

}  // namespace aprime::mount
