#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "aprime/launch.hpp"
#include "host/engine/coherent_file.hpp"
#include "host/engine/lease_gates.hpp"

namespace aprime::engine {

/// A range of a file that a launch wants.
struct FileRequest {
  std::shared_ptr<CoherentFile> file;
  ByteRange range;
  Right right;
  /// Faulted in while the kernel runs, and not leased.
  bool on_demand = false;
};

/// A part of a file that a launch holds, or is about to take.
struct LeasedRange {
  CoherentFile* file;
  ByteRange bytes;
  GranuleRange granules;
  Right right;
};

/// The rights of one launch on one device, held until destruction. Every granule is resident and pinned; on a
/// software-paged device each range lies in contiguous frames, which kernels may touch after `open`.
///
/// Requests on demand are left out, but a lease has their right, too, where they share a granule. Overlapping
/// ones on one file become one range with the stronger right.
///
/// Launches that lease do not wait in a circle. Ranges are taken in ascending order (file, then offset), so
/// who waits for a granule holds only lower ones. A device has at most two launches with leases: one that
/// runs, and waits for nothing, and one that takes its own meanwhile (`beside`), or has them all and waits
/// for the one that runs. So each wait for a granule is for a launch that runs or soon will, or for one that
/// waits for a higher granule itself. None waits long for room with a granule in its hands, because who has
/// that room may wait for the granule. Launches that fault, too, are kept apart: see LeaseGates.
class DeviceLeases {
 public:
  /// Takes them all, and waits as long as it takes. \pre no other launch of the device holds leases
  /// \throws Error(device_memory) that says how much is needed; Error(out_of_range | io | no_space |
  /// access_denied)
  DeviceLeases(DeviceSlot& slot, std::span<const FileRequest> requests);
  ~DeviceLeases();
  DeviceLeases(const DeviceLeases&) = delete;
  DeviceLeases& operator=(const DeviceLeases&) = delete;

  /// The same while another launch of the device runs with the leases `running`, or has just ended. A range
  /// that lies within one of those is shared, if the right is included there: nothing moves, and what the
  /// other stores is what this one finds. Whatever else overlaps the other's granules cannot be had, because
  /// they would have to move or to change their right under it, nor is there room where it lies.
  ///
  /// Null, and nothing is held, if not everything can be had now, whatever the reason: the constructor tells
  /// it, after the other has ended.
  static std::unique_ptr<DeviceLeases> beside(std::span<const LeasedRange> running, DeviceSlot& slot,
                                              std::span<const FileRequest> requests) noexcept;

  /// Lets kernels touch what is leased, from now on until destruction. \throws Error(resources)
  void open();

  /// Where the bytes of a request lie. \pre the request was one of those that this was made for
  detail::LeasedMemory memory_of(const FileRequest& request) const noexcept;
  /// What is held.
  std::vector<LeasedRange> ranges() const { return {held_.begin(), held_.end()}; }

 private:
  struct Held : LeasedRange {
    bool is_open = false;
  };

  /// Nothing yet.
  struct None {};
  DeviceLeases(DeviceSlot& slot, std::span<const FileRequest> requests, None)
      : slot_(slot), gates_(requests) {}

  static std::vector<Held> merged(std::span<const FileRequest> requests);
  /// \throws Error(device_memory)
  FrameCount frames_of_all(const std::vector<Held>& wanted) const;

  /// Takes one range after the other, each where it is best. False, and nothing is held, if they do not fit
  /// that way although there is room for all.
  bool acquire_each(std::vector<Held>& wanted);
  /// Takes all in one run of frames. \pre nothing is held
  void acquire_packed(std::vector<Held>& wanted, FrameCount total);
  bool acquire(Held& held);
  bool acquire_placed(Held& held);
  bool acquire_in_place(Held& held);
  /// Whether there is nothing of `running_` that a range cannot be had beside.
  bool is_compatible(const LeasedRange& wanted) const noexcept;
  /// Reserves a run of frames, as soon as there is one, and lets `use` place leases there. False if what is
  /// held already is in the way, or in the way of who is, or anything at all beside a running launch.
  template <class Use>
  bool in_reserved_run(const Held& aligned_for, FrameCount count, Use use);
  /// Pins the granules in the frames from `first` on. False as `clear_window`. \pre the frames are reserved
  bool place_in(const Held& held, FrameIndex first, Status& why);
  FrameCount step_of(const Held& held) const noexcept;
  FrameCount frames_of(const Held& held) const noexcept;
  /// Pins the granules with the right; returns the number that were, and why it stopped.
  Progress pin(const Held& held, const FrameIndex* placement);
  /// Evicts what others have in the frames. False if that cannot be done now; `why` is what the last attempt
  /// gave.
  bool clear_window(const Held& held, FrameIndex first, FrameCount count, Status& why) noexcept;
  bool is_contiguous(const Held& held) const noexcept;
  void release(const Held& held) noexcept;
  void release_all() noexcept;

  DeviceSlot& slot_;
  /// Passed before anything is taken, and left after everything is let go.
  LeaseGates gates_;
  std::vector<Held> held_;
  /// While leases are taken beside a running launch.
  std::optional<std::span<const LeasedRange>> running_;
};

/// A hardware-paged device needs no lease to run a kernel; this gives the granules that the launch will
/// overwrite whole a zeroed frame ahead of the faults, as far as there are free frames, so that they are not
/// filled. Best effort. Does nothing if one of the launch's other requests (`all`) reads some of the same
/// bytes.
void adopt_ahead(DeviceSlot& slot, const FileRequest& request, std::span<const FileRequest> all) noexcept;

}  // namespace aprime::engine
