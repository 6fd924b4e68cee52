#pragma once

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
#include "host/sync/mutex.hpp"

namespace aprime::engine {

class MappingState;

/// A launch on its way: what to run and what it wants. It keeps its mappings alive until it has ended, so
/// that what it stores last is copied home too.
struct Launch {
  std::string name;
  /// Empty for a task.
  std::optional<Grid> grid;
  std::unique_ptr<detail::LaunchClosure> closure;
  std::vector<FileRequest> requests;
  std::vector<std::shared_ptr<MappingState>> mappings;
  std::shared_ptr<detail::CompletionState> completion;
};

/// Runs the launches of one device one after another on a thread of its own, as a stream does. Thread-safe.
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

  void run() noexcept;
  void place(const Launch& launch, Placement& placement);
  DeviceFaultStatus execute(Launch& launch) noexcept;
  DeviceFaultStatus run_on_device(Launch& launch);

  DeviceSlot& slot_;
  sync::Mutex mutex_{sync::LockRank::queue};
  std::condition_variable_any changed_;
  std::deque<Launch> waiting_ APRIME_GUARDED_BY(mutex_);
  bool running_ APRIME_GUARDED_BY(mutex_) = false;
  bool stopping_ APRIME_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace aprime::engine

namespace aprime::detail {

/// The shared end of a launch: empty until it has ended.
struct CompletionState {
  sync::Mutex mutex{sync::LockRank::queue};
  std::condition_variable_any changed;
  std::optional<DeviceFaultStatus> status APRIME_GUARDED_BY(mutex);

  void set(DeviceFaultStatus s) {
    {
      const sync::Lock lock(mutex);
      status = std::move(s);
    }
    changed.notify_all();
  }
};

}  // namespace aprime::detail
