#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "aprime/access.hpp"
#include "aprime/error.hpp"
#include "aprime/units.hpp"
#include "host/device/device.hpp"

namespace aprime::device {

/// Bytes that lie in device memory: `size` of them, `offset` behind the start of a frame. They may reach into
/// the frames that follow.
struct FrameBytes {
  FrameIndex first;
  ByteCount offset;
  ByteCount size;
};

/// The frames of a software-paged device: moves bytes in and out of them, and keeps who may touch them.
/// Knows nothing of granules; `FramedRegion` does.
///
/// When an operation returns, its bytes have arrived. All are `noexcept`, allocate nothing, and may be called
/// by many threads at once for different frames, also inside a signal handler on a small stack. On failure
/// the target holds anything, unless said otherwise.
class FrameMemory {
 public:
  virtual ~FrameMemory() = default;

  /// Where kernels find a frame; contiguous frames have contiguous addresses.
  virtual std::byte* address(FrameIndex frame) const noexcept = 0;

  /// `Region::copied_at_once` of the regions that lie here.
  virtual ByteCount copied_at_once() const noexcept { return kCopiedAtOnceMin; }
  /// Copies home, from `at` on, into frames. Valid answers: ok; io; out_of_range; resources.
  virtual Status fill(FrameBytes to, HomePort& home, ByteOffset at) noexcept = 0;
  /// Copies frames to home, from `at` on. Valid answers: ok; io; no_space; resources.
  virtual Status copy_home(FrameBytes from, HomePort& home, ByteOffset at) noexcept = 0;
  /// Valid answers, as of the next three: ok; resources.
  virtual Status zero(FrameBytes bytes) noexcept = 0;
  /// `from.size` bytes are read. \pre into.size() == from.size
  virtual Status read(FrameBytes from, std::span<std::byte> into) noexcept = 0;
  /// \pre from.size() == to.size
  virtual Status write(FrameBytes to, std::span<const std::byte> from) noexcept = 0;
  /// Copies `from` to the start of another frame, which it does not overlap. Keeps the source.
  virtual Status copy(FrameBytes from, FrameIndex to) noexcept = 0;

  /// Lets kernels touch frames. Leases nest and overlap. Valid answers: ok; resources (nothing was opened).
  virtual Status open(FrameIndex first, FrameCount count, Right right) noexcept = 0;
  /// When it returns, no kernel can use a right that only this lease gave.
  virtual void close(FrameIndex first, FrameCount count, Right right) noexcept = 0;
  /// Whether a lease that includes `right` is open on one of these frames. For assertions: a memory that does
  /// not watch its leases says no.
  virtual bool is_leased(FrameIndex first, FrameCount count, Right right) const noexcept = 0;

  /// Says for messages what lies in these frames from now on: the bytes of a file from `at`.
  virtual void label(FrameIndex first, FrameCount count, RegionId region, ByteOffset at) noexcept = 0;
  virtual void clear_label(FrameIndex first, FrameCount count) noexcept = 0;
};

}  // namespace aprime::device
