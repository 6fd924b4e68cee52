#pragma once

#include <memory>
#include <span>
#include <vector>

#include "aprime/launch.hpp"
#include "host/engine/coherent_file.hpp"

namespace aprime::engine {

/// A range of a file that a launch wants.
struct FileRequest {
  std::shared_ptr<CoherentFile> file;
  ByteRange range;
  Right right;
  /// Faulted in while the kernel runs, and not leased.
  bool on_demand = false;
};

/// The rights of one launch on one device, held until destruction. Every granule is resident and pinned; on a
/// software-paged device each range lies in contiguous frames that kernels may touch.
///
/// Requests on demand are left out. Overlapping ones on one file become one range with the stronger right.
/// Ranges are taken in ascending order (file, then offset), so that two launches on different devices cannot
/// wait for each other.
class DeviceLeases {
 public:
  /// \throws Error(device_memory) that says how much is needed; Error(out_of_range | io | no_space |
  /// access_denied)
  DeviceLeases(DeviceSlot& slot, std::span<const FileRequest> requests);
  ~DeviceLeases();
  DeviceLeases(const DeviceLeases&) = delete;
  DeviceLeases& operator=(const DeviceLeases&) = delete;

  /// Where the bytes of a request lie. \pre the request was given to the constructor
  detail::LeasedMemory memory_of(const FileRequest& request) const noexcept;

 private:
  struct Held {
    CoherentFile* file;
    ByteRange bytes;
    GranuleRange granules;
    Right right;
    std::byte* data = nullptr;
  };

  /// Takes one range after the other, each where it is best. False, and nothing is held, if they do not fit
  /// that way although there is room for all.
  bool acquire_each(std::vector<Held>& wanted);
  /// Takes all in one run of frames. \pre nothing is held
  void acquire_packed(std::vector<Held>& wanted, FrameCount total);
  bool acquire(Held& held);
  bool acquire_placed(Held& held);
  bool acquire_in_place(Held& held);
  /// Reserves a run of frames, as soon as there is one, and lets `use` place leases there. False if only what
  /// is held already is in the way.
  template <class Use>
  bool in_reserved_run(const Held& aligned_for, FrameCount count, Use use);
  /// Pins the granules in the frames from `first` on. False as `clear_window`. \pre the frames are reserved
  bool place_in(const Held& held, FrameIndex first, Status& why);
  /// Lets kernels touch what is pinned; from then on it is held.
  void open(Held& held);
  FrameCount step_of(const Held& held) const noexcept;
  FrameCount frames_of(const Held& held) const noexcept;
  /// Pins the granules with the right; returns the number that were, and why it stopped.
  Progress pin(const Held& held, const FrameIndex* placement);
  void unpin(CoherentFile& file, GranuleRange granules) noexcept;
  /// Evicts what others have in the frames. False if that cannot be done now; `why` is what the last attempt
  /// gave.
  bool clear_window(const Held& held, FrameIndex first, FrameCount count, Status& why) noexcept;
  bool is_contiguous(const Held& held) const noexcept;
  void release(const Held& held) noexcept;
  void release_all() noexcept;

  DeviceSlot& slot_;
  std::vector<Held> held_;
};

/// A hardware-paged device needs no lease to run a kernel; this gives the granules that the launch will
/// overwrite whole a zeroed frame ahead of the faults, as far as there are free frames, so that they are not
/// filled. Best effort. Does nothing if one of the launch's other requests (`all`) reads some of the same
/// bytes.
void adopt_ahead(DeviceSlot& slot, const FileRequest& request, std::span<const FileRequest> all) noexcept;

}  // namespace aprime::engine
