#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "aprime/mount_status.hpp"
#include "aprime/runtime.hpp"
#include "host/engine/coherent_file.hpp"
#include "host/engine/device_slot.hpp"
#include "host/engine/launch_queue.hpp"
#include "host/engine/mount_port.hpp"
#include "host/os/own_process.hpp"
#include "host/sync/mutex.hpp"
#include "host/trace/trace.hpp"

namespace aprime::engine {

/// What a Runtime handle refers to: devices, the files mapped through them, and the background flusher.
///
/// A file is here from its first mapping until its last mapping has ended and all its bytes are home; a file
/// whose bytes cannot be written stays, so that they are not lost and a later mapping, sync or close finds
/// them.
class RuntimeState : public std::enable_shared_from_this<RuntimeState> {
 public:
  /// \throws Error(invalid_argument | resources)
  RuntimeState(const RuntimeOptions& options, std::vector<std::unique_ptr<device::Device>> devices);
  ~RuntimeState();
  RuntimeState(const RuntimeState&) = delete;
  RuntimeState& operator=(const RuntimeState&) = delete;

  std::shared_ptr<MappingState> map(const std::string& path, Access access, const MapOptions& options) {
    return map(os::File::open(path, access), access, options);
  }
  /// \pre `access` is what the file was opened for
  std::shared_ptr<MappingState> map(os::File opened, Access access, const MapOptions& options);
  Completion submit(unsigned device, const std::string& name, const Grid* grid,
                    std::unique_ptr<detail::LaunchClosure> closure, std::vector<LeaseRequest> requests);

  /// One mapping of the file less; the last one copies everything home. What cannot go home keeps the file
  /// here: the flusher tries again, and so does each later call for whatever file.
  Status release(CoherentFile& file) noexcept;
  /// Waits until every launch made so far has ended.
  void drain_launches();
  /// Copies everything home that devices have; tells the first file of which something could not be.
  Status copy_home(std::string& failed_path) noexcept;
  /// Ends launches and the flusher, copies everything home. May be called again after a failure.
  Status close(std::string& failed_path);

  /// Begins to show this runtime's files through `mount`, until `remove_mount`. \throws Error(conflict) if
  /// there is one, and what MountPort::attach throws
  void add_mount(MountPort& mount);
  /// Returns when nobody calls it any more. Nothing is recalled from then on.
  void remove_mount() noexcept { mount_.set(nullptr); }
  /// As MountPort::recall, of the mount that there is.
  void recall(const os::FileIdentity& file, ByteRange range) noexcept {
    mount_.with(0, [&](MountPort& mount) { return mount.recall(file, range), 0; });
  }
  /// Calls `fn` with the file if it is mapped; the file stays mapped meanwhile.
  void with_file(const os::FileIdentity& identity,
                 const std::function<void(const std::shared_ptr<CoherentFile>&)>& fn) const;
  HostAccess host_access() const noexcept { return options_.host_access; }

  /// Of every file, in the order of their paths, which are absolute.
  std::vector<FileStatus> report_files() const;
  std::vector<DeviceInfo> devices() const;
  Stats stats() const;
  Stats stats(unsigned device) const;
  unsigned device_count() const noexcept { return static_cast<unsigned>(slots_.size()); }
  /// False in a child made by fork(): it has none of the threads and none of the memory.
  bool is_own_process() const noexcept;
  /// \throws Error(invalid_argument) in such a child: it would wait for threads, and touch memory, that only
  /// its parent has
  void require_own_process() const;

 private:
  struct FileEntry {
    std::uint64_t id = 0;
    std::shared_ptr<CoherentFile> file;
    unsigned mappings = 0;
    /// Its bytes could not go home when the last mapping had ended.
    bool is_stuck = false;
  };

  /// The file, counted as mapped once more, and its size. \throws as `map`
  std::pair<std::shared_ptr<CoherentFile>, ByteCount> known_file(os::File opened, Access access,
                                                                 const MapOptions& options);
  DeviceSlot& slot_for(unsigned device) const;
  void add_device_stats(DeviceSlot& slot, Stats& s) const;
  std::vector<FileEntry>::iterator entry_of(const CoherentFile& file) noexcept APRIME_REQUIRES(mutex_);
  std::vector<FileEntry>::iterator entry_of(const os::FileIdentity& identity) noexcept
      APRIME_REQUIRES(mutex_);
  /// Copies everything of a file home that no mapping has, and forgets it unless one has it by then.
  Status let_go(CoherentFile& file) noexcept;
  /// The same for a file that no mapping has any more, if it would be in the way of one with this granule.
  void let_go_for(GranuleSize granule, const os::FileIdentity& identity) noexcept;
  /// The same for all that could not go home when their last mapping ended.
  void let_stuck_go() noexcept;
  void run_flusher() noexcept;
  bool should_flush() const noexcept;
  void flush() noexcept;
  /// The first file that came after the one with this number, which becomes its own.
  std::shared_ptr<CoherentFile> file_after(std::uint64_t& id, bool (*which)(const FileEntry&)) const noexcept;
  /// Calls `fn(CoherentFile&)`, without the lock; meanwhile others come and go. Allocates nothing itself.
  template <class Fn>
  void for_each_file(
      Fn&& fn, bool (*which)(const FileEntry&) = [](const FileEntry&) { return true; }) const {
    for (std::uint64_t id = 0; const std::shared_ptr<CoherentFile> file = file_after(id, which);) fn(*file);
  }

  // Constant after construction.
  /// Before all that can trap, and the last to go.
  const trace::Tracer tracer_;
  const RuntimeOptions options_;
  const os::OwnProcess process_;
  std::vector<std::unique_ptr<DeviceSlot>> slots_;
  std::vector<DeviceSlot*> slot_pointers_;
  std::vector<std::unique_ptr<LaunchQueue>> queues_;

  Counters host_;
  MountSlot mount_;
  mutable sync::Mutex mutex_{sync::LockRank::runtime};
  /// In the order of their numbers.
  std::vector<FileEntry> files_ APRIME_GUARDED_BY(mutex_);
  std::uint64_t files_known_ APRIME_GUARDED_BY(mutex_) = 0;

  sync::Mutex flusher_mutex_{sync::LockRank::queue};
  std::condition_variable_any flusher_wakeup_;
  bool stopping_ APRIME_GUARDED_BY(flusher_mutex_) = false;
  std::thread flusher_;
};

}  // namespace aprime::engine
