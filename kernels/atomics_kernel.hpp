#pragma once

#include <cstddef>
#include <cstdint>

#include "aprime/device_span.hpp"
#include "aprime/kernel.hpp"

namespace aprime::kernels {

/// Adds 1 to each counter `increments` times, each time by another thread. Threads of neighbouring blocks
/// work on one tile of counters at once, and take its counters in an order that scatters them, so that
/// counters are fought over while the kernel goes through the file.
struct AtomicsKernel {
  static constexpr unsigned kThreads = 128;
  static constexpr std::uint64_t kTile = 1024;

  std::uint64_t increments;

  APRIME_DEVICE void operator()(device_span<unsigned> counters) const {
    const std::uint64_t threads = std::uint64_t{gridDim.x} * blockDim.x;
    const std::uint64_t total = counters.size() * increments;
    for (std::uint64_t i = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < total; i += threads) {
      const std::uint64_t first = i / (kTile * increments) * kTile;
      const std::uint64_t size = counters.size() - first < kTile ? counters.size() - first : kTile;
      counters.atomic_add(first + scattered(i - first * increments, size), 1U);
    }
  }

 private:
  /// Takes `size` consecutive numbers to all numbers below `size`: multiplication by what has no common
  /// factor with it.
  APRIME_DEVICE static std::uint64_t scattered(std::uint64_t n, std::uint64_t size) {
    constexpr std::uint64_t kPrime = 613;
    return (size % kPrime == 0 ? n : n * kPrime) % size;
  }
};

}  // namespace aprime::kernels
