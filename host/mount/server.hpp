#pragma once

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "aprime/mount.hpp"
#include "aprime/mount_status.hpp"
#include "host/mount/calls.hpp"
#include "host/mount/reclaimer.hpp"
#include "host/mount/session.hpp"
#include "host/mount/source.hpp"
#include "host/mount/workers.hpp"
#include "host/sync/mutex.hpp"

namespace aprime::mount {

/// What a Mount handle refers to: the source tree, the session, and the threads that serve it.
class Server final : public engine::MountPort {
 public:
  /// Both paths absolute, without symbolic links. \throws Error(cannot_open | resources | conflict)
  Server(std::shared_ptr<engine::RuntimeState> runtime, std::string source, std::string mountpoint,
         const MountOptions& options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  MountStatus status() const;
  /// As Runtime::map, for a file by its path below the mount. \throws Error
  Mapping map(const std::string& path, Access access, const MapOptions& options);

  const std::string& source_path() const noexcept { return source_path_; }
  const std::string& mountpoint() const noexcept { return mountpoint_; }

  void wait() { workers_.wait(); }
  void unmount() noexcept;
  /// False in a child made by fork(): it has none of the threads.
  bool is_own_process() const noexcept;

  // engine::MountPort
  void recall(const os::FileIdentity& file, ByteRange range) noexcept override;
  void forget_attributes(const os::FileIdentity& file) noexcept override;
  void attach(const std::shared_ptr<engine::CoherentFile>& file) override;
  Status detach(engine::CoherentFile& file) noexcept override;
  bool is_own(std::uint64_t device) const noexcept override { return device == device_.load(); }

 private:
  void start_calls(const MountOptions& options);
  /// What those are told who unmounted.
  MountMessage copy_home() const;
  /// Whether the mount is what its mount point leads to: neither unmounted nor covered by another mount,
  /// which may be one of aprime as well.
  bool is_seen() const;
  /// Has the kernel write back what programs have stored by mmap until now.
  void write_stored_pages();

  // Constant after construction.
  const pid_t process_;
  const std::string source_path_;
  const std::string mountpoint_;

  Source source_;
  std::optional<Session> session_;
  Workers workers_;
  /// Ends while requests are served.
  std::optional<Reclaimer> reclaimer_;
  /// Of our own file system; 0 until it is mounted.
  std::atomic<std::uint64_t> device_ = 0;
  /// What is served there may use all of the above.
  std::optional<Calls> calls_;

  /// Ends the mount when somebody has unmounted it, whether this program looks or not.
  std::thread ender_;

  sync::Mutex unmount_mutex_{sync::LockRank::mount_end};
  bool is_unmounted_ APRIME_GUARDED_BY(unmount_mutex_) = false;
};

}  // namespace aprime::mount
