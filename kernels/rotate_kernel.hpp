#pragma once

#include <cstddef>
#include <cstdint>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"

namespace aprime::kernels {

/// Reverses the order of all elements. One thread per pair.
struct ReverseKernel {
  APRIME_DEVICE void operator()(LeasedSpan<std::uint32_t> elements) const {
    const std::size_t front = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (front >= elements.size() / 2) return;
    const std::size_t back = elements.size() - 1 - front;
    const std::uint32_t kept = elements[front];
    elements[front] = elements[back];
    elements[back] = kept;
  }
};

/// Reverses the two ends of a longer range: swaps the first element of `front` with the last one of `back`
/// and so on. Both have the same size.
struct ReverseEndsKernel {
  APRIME_DEVICE void operator()(LeasedSpan<std::uint32_t> front, LeasedSpan<std::uint32_t> back) const {
    const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i >= front.size()) return;
    const std::size_t mirrored = back.size() - 1 - i;
    const std::uint32_t kept = front[i];
    front[i] = back[mirrored];
    back[mirrored] = kept;
  }
};

}  // namespace aprime::kernels
