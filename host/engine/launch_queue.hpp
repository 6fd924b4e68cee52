#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "aprime/launch.hpp"
#include "host/engine/device_lease.hpp"
#include "host/engine/device_slot.hpp"
#include "host/engine/mapping_state.hpp"
#include "host/sync/mutex.hpp"

namespace aprime::engine {

/// A launch on its way: what to run and what it wants. It keeps its mappings alive until it has ended, so
/// that what it stores last is copied home too.
struct Launch {
  std::string name;
  /// Empty for a task.
  std::optional<Grid> grid;
  std::unique_ptr<detail::LaunchClosure> closure;
  std::vector<FileRequest> requests;
  std::vector<MappingUse> mappings;
  std::shared_ptr<detail::CompletionState> completion;
};

/// Runs the launches of one device one after another on a thread of its own, as a stream does. Thread-safe.
///
/// A launch's leases are taken when the one before it has ended. On a software-paged device a second thread,
/// the placer, tries to take those of the next launch earlier, while one runs, so that copies and kernel
/// overlap. It does so only if neither of the two faults (a fault needs frames, and may need a granule that
/// the next launch has), and only as far as the running launch does not notice (`DeviceLeases::beside`). What
/// it does not get, the next launch gets when its turn has come.
class LaunchQueue {
 public:
  explicit LaunchQueue(DeviceSlot& slot);
  /// Runs what is queued to its end.
  ~LaunchQueue();

  void push(Launch launch);
  /// Waits until everything pushed so far has ended.
  void drain();

 private:
  struct Placement;
  class Announcement;
  struct Waiting {
    Launch launch;
    /// If the placer got them.
    std::unique_ptr<DeviceLeases> leases;
  };

  void stop() noexcept;
  void run() noexcept;
  void place(Waiting& next, Placement& placement);
  /// \throws Error(device_memory)
  void require_room_for_a_granule(const FileRequest& request);
  DeviceFaultStatus execute(Waiting& next) noexcept;
  /// \throws std::bad_alloc
  DeviceFaultStatus run_and_tell(Waiting& next);
  DeviceFaultStatus run_on_device(Waiting& next);

  void place_ahead() noexcept;
  /// Whether it is leases that a launch needs, and nothing else.
  bool is_placed_by_leases(const Launch& launch) const noexcept;
  bool may_place_ahead() const noexcept APRIME_REQUIRES(mutex_);

  DeviceSlot& slot_;
  sync::Mutex mutex_{sync::LockRank::queue};
  std::condition_variable_any changed_;
  std::deque<Waiting> waiting_ APRIME_GUARDED_BY(mutex_);
  /// How many launches there were so far, and how many of them have ended.
  std::uint64_t pushed_ APRIME_GUARDED_BY(mutex_) = 0;
  std::uint64_t ended_ APRIME_GUARDED_BY(mutex_) = 0;
  bool stopping_ APRIME_GUARDED_BY(mutex_) = false;
  /// What the running launch holds, if the next one's leases may be taken meanwhile, until the placer begins.
  std::optional<std::vector<LeasedRange>> running_leases_ APRIME_GUARDED_BY(mutex_);
  /// The placer is at work on the first of those that wait, which stays there.
  bool placing_ APRIME_GUARDED_BY(mutex_) = false;
  std::thread thread_;
  std::thread placer_;
};

}  // namespace aprime::engine

namespace aprime::detail {

/// The shared end of a launch: empty until it has ended.
struct CompletionState {
  sync::Mutex mutex{sync::LockRank::queue};
  std::condition_variable_any changed;
  std::optional<DeviceFaultStatus> status APRIME_GUARDED_BY(mutex);
  /// In a child of this process, made by fork(), the launch never ends.
  const pid_t process = getpid();

  void set(DeviceFaultStatus s) {
    {
      const sync::Lock lock(mutex);
      status = std::move(s);
    }
    changed.notify_all();
  }
};

}  // namespace aprime::detail
