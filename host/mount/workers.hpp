#pragma once

#include <atomic>
#include <condition_variable>
#include <list>
#include <thread>

#include "host/mount/session.hpp"
#include "host/os/file.hpp"
#include "host/sync/mutex.hpp"

namespace aprime::mount {

/// Threads that serve a FUSE session's requests. A request may wait for others (a granule, a device, a disk),
/// so there is always one thread more than there are requests in work, up to a number that only a runaway
/// would reach; idle ones beyond a few end.
class Workers {
 public:
  /// \throws Error(resources)
  explicit Workers(fuse_session& session);
  /// As `stop`.
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  /// \throws std::system_error if no thread can be made; Error(resources) if there is no memory for it
  void start();
  /// Waits until all have ended, as threads too: the session was unmounted, or `stop` was called.
  void wait();
  /// Ends them when they have answered what they are at. Requests in the kernel's queue stay there.
  void stop() noexcept;

 private:
  struct Worker {
    explicit Worker(bool huge_buffer) : buffer(huge_buffer) {}

    std::thread thread;
    RequestBuffer buffer;
  };

  void add_worker() APRIME_REQUIRES(mutex_);
  void run(std::list<Worker>::iterator self) noexcept;
  void serve(RequestBuffer& buffer) noexcept;
  /// One more is at work: there shall be an idle one behind it.
  void begin_work() noexcept;
  /// False if this worker is one too many.
  bool end_work() noexcept;
  bool wait_for_request() noexcept;
  /// Receives a request if one comes soon, without sleeping; one worker at a time. As `receive`.
  int keep_looking(RequestBuffer& buffer) noexcept;

  fuse_session& session_;
  const os::Descriptor stop_event_;

  std::atomic<bool> somebody_looks_{false};

  /// Of those that wait for the end.
  sync::Mutex join_mutex_{sync::LockRank::mount_threads};
  sync::Mutex mutex_{sync::LockRank::workers};
  std::condition_variable_any ended_;
  std::list<Worker> running_ APRIME_GUARDED_BY(mutex_);
  /// Ended, to be joined.
  std::list<Worker> finished_ APRIME_GUARDED_BY(mutex_);
  unsigned idle_ APRIME_GUARDED_BY(mutex_) = 0;
  bool is_stopping_ APRIME_GUARDED_BY(mutex_) = false;
};

}  // namespace aprime::mount
