#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "aprime/mount.hpp"
#include "host/mount/session.hpp"
#include "host/mount/source.hpp"
#include "host/mount/workers.hpp"
#include "host/sync/mutex.hpp"

namespace aprime::mount {

/// What a Mount handle refers to: the source tree, the session, and the threads that serve it.
class Server {
 public:
  /// Both paths absolute, without symbolic links. \throws Error(cannot_open | resources)
  Server(std::string source, std::string mountpoint, const MountOptions& options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  const std::string& source_path() const noexcept { return source_path_; }
  const std::string& mountpoint() const noexcept { return mountpoint_; }

  void wait() { workers_.wait(); }
  void unmount() noexcept;
  /// False in a child made by fork(): it has none of the threads.
  bool is_own_process() const noexcept;

 private:
  void write_stored_pages() const noexcept;

  // Constant after construction.
  const pid_t process_;
  const std::string source_path_;
  const std::string mountpoint_;

  Source source_;
  std::optional<Session> session_;
  Workers workers_;

  sync::Mutex unmount_mutex_{sync::LockRank::runtime};
  bool is_unmounted_ APRIME_GUARDED_BY(unmount_mutex_) = false;
};

}  // namespace aprime::mount
