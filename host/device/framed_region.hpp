#pragma once

#include "host/device/device.hpp"
#include "host/device/frame_memory.hpp"

namespace aprime::device {

/// A′ of one file in the frames of a software-paged device. A right is a matter of the directory here:
/// kernels touch what is leased to them, and a lease is opened only after the rights for it were given. So
/// rights move without any work. Kernels that fault are the business of `DemandRegion`.
class FramedRegion : public Region {
 public:
  /// `memory` must outlive the region. \throws Error(resources)
  FramedRegion(RegionParams params, FrameMemory& memory, ByteCount frame_bytes);

  Progress fill(GranuleRange run, HomePort& home) noexcept override;
  Progress adopt(GranuleRange run) noexcept override;
  Progress grant_write(GranuleRange run) noexcept override { return {run.count, {}}; }
  Progress protect(GranuleRange run) noexcept override;
  Progress release(GranuleRange run) noexcept override;
  ByteCount copied_at_once() const noexcept override { return memory_.copied_at_once(); }
  Progress copy_home(GranuleRange run, HomePort& home) noexcept override;
  Status read_copy(GranuleIndex g, ByteCount offset, std::span<std::byte> into) noexcept override;
  Status write_copy(GranuleIndex g, ByteCount offset, std::span<const std::byte> from) noexcept override;
  Status reserve(GranuleCount granules) noexcept override { return reserve_frames(granules); }
  Status move(GranuleRange row, FrameIndex to) noexcept override;

  /// `Device::open_lease` and `close_lease` of such a device.
  Status open_lease(GranuleRange granules, Right right) noexcept;
  void close_lease(GranuleRange granules, Right right) noexcept;

 protected:
  void label(GranuleRange r) noexcept;

  FrameMemory& memory_;

 private:
  /// Calls `operation` for one part of the run after the other, each with granules that lie next to one
  /// another in frames as in the file.
  template <class Operation>
  Progress by_contiguous_frames(GranuleRange run, const Operation& operation) noexcept;
  GranuleRange contiguous_part(GranuleRange run) const noexcept;
  FrameCount frames_of(GranuleCount granules) const noexcept {
    return FrameCount{granules.value * params_.frames_per_granule.value};
  }
  /// \pre the granules lie next to one another
  FrameBytes bytes_of(GranuleRange r) const noexcept {
    return {frame_of(r.first), ByteCount{0}, params_.granule.bytes_of(r.count)};
  }
  bool any_leased(GranuleRange run, Right right) const noexcept;

  /// Granules in neighbouring frames have no gap between them.
  const bool frames_are_full_;
};

}  // namespace aprime::device
