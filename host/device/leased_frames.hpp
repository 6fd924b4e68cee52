#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "aprime/access.hpp"
#include "aprime/error.hpp"
#include "aprime/units.hpp"
#include "host/device/device_fault.hpp"
#include "host/device/frame_memory.hpp"
#include "host/device/frame_pool.hpp"
#include "host/device/twin_memory.hpp"
#include "host/os/protected_range.hpp"
#include "host/os/trap.hpp"
#include "host/sync/mutex.hpp"

namespace aprime::device {

/// The memory of a strict device. We reach its frames by an alias; kernels have a view of it, in which a
/// frame may be touched as the strongest of the leases that are open on it permits, and not at all when there
/// is none. A kernel that does more is stopped. Thread-safe.
class LeasedFrames final : public FrameMemory, private os::TrapTarget {
 public:
  /// \throws Error(resources)
  LeasedFrames(ByteCount frame_bytes, FrameCount frames);

  std::byte* address(FrameIndex frame) const noexcept override { return view_.data() + offset_of(frame); }
  /// Frame 0 by the way that leases do not restrict.
  std::byte* alias() const noexcept { return memory_.alias().data(); }

  Status fill(FrameBytes to, HomePort& home, ByteOffset at) noexcept override;
  Status copy_home(FrameBytes from, HomePort& home, ByteOffset at) noexcept override;
  Status zero(FrameBytes bytes) noexcept override;
  Status read(FrameBytes from, std::span<std::byte> into) noexcept override;
  Status write(FrameBytes to, std::span<const std::byte> from) noexcept override;
  Status copy(FrameBytes from, FrameIndex to) noexcept override;

  Status open(FrameIndex first, FrameCount count, Right right) noexcept override;
  void close(FrameIndex first, FrameCount count, Right right) noexcept override;
  bool is_leased(FrameIndex first, FrameCount count, Right right) const noexcept override;

  void label(FrameIndex first, FrameCount count, RegionId region, ByteOffset at) noexcept override;
  void clear_label(FrameIndex first, FrameCount count) noexcept override;

 private:
  struct Frame {
    /// Open leases. Written under the mutex; the trap handler reads them without it.
    std::atomic<std::uint32_t> readers{0};
    std::atomic<std::uint32_t> writers{0};
    /// Region plus one, and page of the file; 0 = nothing.
    std::atomic<std::uint64_t> label{0};

    os::Protection permitted() const noexcept;
  };

  Answer on_trap(const os::Trap& trap) noexcept override;
  KernelFault explain(std::uint64_t offset, bool write) const noexcept;
  void count(FrameIndex first, FrameCount count, Right right, bool open) noexcept APRIME_REQUIRES(mutex_);
  Status apply(FrameIndex first, FrameCount count) noexcept APRIME_REQUIRES(mutex_);
  /// Where we find bytes.
  std::span<std::byte> bytes(FrameBytes b) const noexcept {
    return memory_.alias().subspan(offset_of(b.first) + static_cast<std::size_t>(b.offset.value),
                                   static_cast<std::size_t>(b.size.value));
  }
  std::size_t offset_of(FrameIndex frame) const noexcept {
    return static_cast<std::size_t>(frame.value * frame_bytes_.value);
  }

  const ByteCount frame_bytes_;
  std::vector<Frame> frames_;
  TwinMemory memory_;
  os::Mapped guard_before_;
  os::Mapped guard_after_;
  /// Guards the protection of the view. Held across mprotect, never across a fault.
  sync::Mutex mutex_{sync::LockRank::frames};
  os::ProtectedRange view_;
  os::TrapRegistration traps_;
};

}  // namespace aprime::device
