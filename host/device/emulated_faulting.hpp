#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "host/device/emulated_device.hpp"
#include "host/device/staging.hpp"
#include "host/os/trap.hpp"

namespace aprime::device {

/// A′ of one file behind a window: what the two ways to trap accesses to a window have in common.
///
/// Frames are an account of memory here and nothing more: a granule lies at its place in the window.
class FaultingRegion : public Region, private os::TrapTarget {
 public:
  std::byte* window() noexcept final { return window_; }
  detail::PagedWindow paged_window() noexcept final;
  Status reserve(GranuleCount granules) noexcept final;
  /// Granules have no other place to go to.
  Status move(GranuleIndex g, FrameIndex to) noexcept final;

 protected:
  FaultingRegion(RegionParams params, FaultHandler& handler);

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

  /// To be called once the window is there: from then on accesses to it are served. The derived class keeps
  /// the registration, as its last member, so that it ends before the window.
  [[nodiscard]] os::TrapRegistration serve(std::byte* window, std::size_t size);

  std::size_t offset_of(GranuleIndex g) const noexcept {
    return static_cast<std::size_t>(params_.granule.offset_of(g).value);
  }
  std::size_t size_of(GranuleRange run) const noexcept {
    return static_cast<std::size_t>(params_.granule.bytes_of(run.count).value);
  }

 private:
  Answer on_trap(const os::Trap& trap) noexcept override;

  FaultHandler& handler_;
  std::byte* window_ = nullptr;
  std::size_t window_bytes_ = 0;
  std::atomic<std::uint64_t> granules_;
};

/// With userfaultfd: pages of the window are missing, present and write-protected, or present and writable.
std::unique_ptr<Region> make_userfault_region(RegionParams params, FaultHandler& handler,
                                              StagingPool& staging);

/// Without: the window is shared memory under mprotect, filled through a second mapping that only we know, so
/// that no other device thread sees a granule half filled.
std::unique_ptr<Region> make_protected_region(RegionParams params, FaultHandler& handler);

}  // namespace aprime::device
