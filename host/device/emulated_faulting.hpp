#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <shared_mutex>

#include "host/device/emulated_device.hpp"
#include "host/device/granule_marks.hpp"
#include "host/device/kernel_activity.hpp"
#include "host/device/staging.hpp"
#include "host/os/trap.hpp"

namespace aprime::device {

/// A′ of one file behind a window: what the two ways to trap accesses to a window have in common.
///
/// Frames are an account of memory here and nothing more: a granule lies at its place in the window.
///
/// While no kernel runs, a write right is taken by a mark alone, and from the hardware when the next kernel
/// is about to begin. Until then the hardware allows more than the directory, to nobody.
class FaultingRegion : public Region, private os::TrapTarget, private BeforeKernels {
 public:
  Progress grant_write(GranuleRange run) noexcept final;
  Progress protect(GranuleRange run) noexcept final;
  Progress release(GranuleRange run) noexcept final;
  Status write_copy(GranuleIndex g, ByteCount offset, std::span<const std::byte> from) noexcept final;

  std::byte* window() noexcept final { return window_; }
  detail::PagedWindow paged_window() noexcept final;
  Status reserve(GranuleCount granules) noexcept final;
  /// Granules have no other place to go to.
  Status move(GranuleRange row, FrameIndex to) noexcept final;

 protected:
  /// \throws Error(resources)
  FaultingRegion(RegionParams params, FaultHandler& handler, KernelActivity& activity);

  // Region's `grant_write`, `protect`, `release` and `write_copy`, by the hardware.
  virtual Progress give_write(GranuleRange run) noexcept = 0;
  virtual Progress take_write(GranuleRange run) noexcept = 0;
  virtual Progress take_all(GranuleRange run) noexcept = 0;
  virtual Status replace(GranuleIndex g, ByteCount offset, std::span<const std::byte> from) noexcept = 0;

  /// `make(size)` makes the window: with room for the file to grow in place if the process has the address
  /// space, else just as large as it must be. \throws what `make` throws then
  template <class Make>
  static auto make_window(const RegionParams& params, const Make& make) {
    constexpr std::uint64_t alignment = std::uint64_t{1} << GranuleSize::kLog2Max;
    constexpr std::uint64_t growth_min = std::uint64_t{1} << 30;
    const std::uint64_t bytes = params.granule.bytes_of(params.granules).value;
    const std::uint64_t needed = std::max(alignment, (bytes + alignment - 1) / alignment * alignment);
    try {
      return make(static_cast<std::size_t>(needed + std::max(needed, growth_min)));
    } catch (const Error&) {
      return make(static_cast<std::size_t>(needed));
    }
  }

  /// While it exists, accesses to the window are served, and rights are taken from it before kernels begin.
  /// The derived class's last member, so that it ends before the window.
  class Serving {
   public:
    /// \throws std::bad_alloc
    Serving(FaultingRegion& region, std::byte* window, std::size_t size);

   private:
    os::TrapRegistration traps_;
    KernelActivity::Registration before_kernels_;
  };

  std::size_t offset_of(GranuleIndex g) const noexcept {
    return static_cast<std::size_t>(params_.granule.offset_of(g).value);
  }
  std::size_t size_of(GranuleRange run) const noexcept {
    return static_cast<std::size_t>(params_.granule.bytes_of(run.count).value);
  }

 private:
  [[nodiscard]] os::TrapRegistration serve(std::byte* window, std::size_t size);
  Answer on_trap(const os::Trap& trap) noexcept override;
  Status before_kernels() noexcept override;
  /// Keeps `before_kernels` from granules that the caller has for himself otherwise. Only he marks them:
  /// where nothing is marked, and no marks are being looked at, it stays away from them.
  std::shared_lock<os::Gate> hold_off_from_marked() noexcept {
    return any_to_protect_.load() ? activity_.hold_off() : std::shared_lock<os::Gate>();
  }

  FaultHandler& handler_;
  KernelActivity& activity_;
  /// Write rights that the hardware has and shall lose before a kernel begins, and whether there may be any.
  GranuleMarks to_protect_;
  std::atomic<bool> any_to_protect_{false};
  std::byte* window_ = nullptr;
  std::size_t window_bytes_ = 0;
  std::atomic<std::uint64_t> granules_;
};

/// With userfaultfd: pages of the window are missing, present and write-protected, or present and writable.
std::unique_ptr<Region> make_userfault_region(RegionParams params, FaultHandler& handler,
                                              KernelActivity& activity, StagingPool& staging);

/// Without: the window is shared memory under mprotect, filled through a second mapping that only we know, so
/// that no other device thread sees a granule half filled.
std::unique_ptr<Region> make_protected_region(RegionParams params, FaultHandler& handler,
                                              KernelActivity& activity);

}  // namespace aprime::device
