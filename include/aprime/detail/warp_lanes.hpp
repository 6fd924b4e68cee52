#pragma once

#include "aprime/grid.hpp"
#include "aprime/kernel.hpp"

namespace aprime::detail {

/// Lanes of a warp that do something together, and the caller's place among them.
struct WarpLanes {
  unsigned mask;
  unsigned own;

  APRIME_DEVICE unsigned leader() const noexcept {
    return static_cast<unsigned>(__ffs(static_cast<int>(mask))) - 1;
  }
  APRIME_DEVICE bool leads() const noexcept { return own == leader(); }
  APRIME_DEVICE unsigned count() const noexcept { return static_cast<unsigned>(__popc(mask)); }
  /// 0 for the leader.
  APRIME_DEVICE unsigned rank() const noexcept {
    return static_cast<unsigned>(__popc(mask & ((1U << own) - 1)));
  }
  /// The leader's value, for all.
  template <class T>
  APRIME_DEVICE T broadcast(T value) const noexcept {
    return __shfl_sync(mask, value, static_cast<int>(leader()));
  }
  /// Orders what each lane did before with what the others do after.
  APRIME_DEVICE void sync() const noexcept { __syncwarp(mask); }
};

APRIME_DEVICE inline unsigned lane_number() noexcept {
  // Qualified, because this namespace has the emulated device's variables of these names.
  const unsigned row = ::threadIdx.z * ::blockDim.y + ::threadIdx.y;
  return (row * ::blockDim.x + ::threadIdx.x) % warp_lanes;
}

}  // namespace aprime::detail
