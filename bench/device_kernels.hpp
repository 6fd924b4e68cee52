#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "aprime/device_span.hpp"
#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"

// Kernels of the figures of software-paged devices, in source that every device can compile, and the same
// kernels over memory that aprime knows nothing of.

namespace aprime::bench {

using Sums = LeasedSpan<unsigned long long>;

/// What a GPU loads at once per lane, at most.
struct alignas(16) Quad {
  std::uint32_t words[4];
};
APRIME_DEVICE inline std::uint64_t sum_of(std::uint32_t word) { return word; }
APRIME_DEVICE inline std::uint64_t sum_of(const Quad& q) {
  return std::uint64_t{q.words[0]} + q.words[1] + q.words[2] + q.words[3];
}

APRIME_DEVICE inline std::size_t thread_number() {
  return std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
}
APRIME_DEVICE inline std::size_t thread_count() { return std::size_t{gridDim.x} * blockDim.x; }

/// In which order warps visit granules: 2^log2_count of them, one after the other or in an order without
/// pattern.
struct GranuleOrder {
  unsigned log2_count;
  bool scattered;

  APRIME_HOST_DEVICE std::uint64_t count() const { return std::uint64_t{1} << log2_count; }
  /// A permutation: odd factors and shifts to the right can be undone.
  APRIME_HOST_DEVICE std::uint64_t operator()(std::uint64_t i) const {
    if (!scattered) return i;
    const std::uint64_t mask = count() - 1;
    for (int round = 0; round < 3; ++round) {
      i = (i * 0x9E37'79B1U + 0x7F4A'7C15U) & mask;
      i ^= i >> (log2_count / 2 + 1);
    }
    return i;
  }
};

/// A warp for each granule: one pin, then raw pointers. All words are added up, `passes` times.
struct PinnedStream {
  GranuleOrder order;
  std::size_t per_granule;
  unsigned passes;

  APRIME_DEVICE void operator()(device_span<const Quad> data, Sums sums) const {
    std::uint64_t sum = 0;
    for (unsigned pass = 0; pass < passes; ++pass)
      for (std::size_t i = thread_number() / warp_lanes; i < order.count();
           i += thread_count() / warp_lanes) {
        const PinnedSpan<const Quad> granule = data.pin_span(order(i) * per_granule, per_granule);
        for (std::size_t at = threadIdx.x % warp_lanes; at < granule.size(); at += warp_lanes)
          sum += sum_of(granule[at]);
      }
    atomicAdd(&sums[threadIdx.x % sums.size()], static_cast<unsigned long long>(sum));
  }
};
struct RawStream {
  GranuleOrder order;
  std::size_t per_granule;
  unsigned passes;

  APRIME_DEVICE void operator()(const Quad* data, Sums sums) const {
    std::uint64_t sum = 0;
    for (unsigned pass = 0; pass < passes; ++pass)
      for (std::size_t i = thread_number() / warp_lanes; i < order.count();
           i += thread_count() / warp_lanes) {
        const LeasedSpan<const Quad> granule{data + order(i) * per_granule, per_granule};
        for (std::size_t at = threadIdx.x % warp_lanes; at < granule.size(); at += warp_lanes)
          sum += sum_of(granule[at]);
      }
    atomicAdd(&sums[threadIdx.x % sums.size()], static_cast<unsigned long long>(sum));
  }
};

/// Every element by a call of its own.
template <class T>
struct LoadEach {
  unsigned passes;

  APRIME_DEVICE void operator()(device_span<const T> data, Sums sums) const {
    std::uint64_t sum = 0;
    for (unsigned pass = 0; pass < passes; ++pass)
      for (std::size_t i = thread_number(); i < data.size(); i += thread_count()) sum += sum_of(data.load(i));
    atomicAdd(&sums[threadIdx.x % sums.size()], static_cast<unsigned long long>(sum));
  }
};
template <class T>
struct RawLoadEach {
  unsigned passes;
  std::size_t size;

  APRIME_DEVICE void operator()(const T* data, Sums sums) const {
    std::uint64_t sum = 0;
    for (unsigned pass = 0; pass < passes; ++pass)
      for (std::size_t i = thread_number(); i < size; i += thread_count()) sum += sum_of(data[i]);
    atomicAdd(&sums[threadIdx.x % sums.size()], static_cast<unsigned long long>(sum));
  }
};

/// Nanoseconds since some instant.
APRIME_DEVICE inline std::uint64_t device_now() {
#ifdef __CUDACC__
  std::uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)::"memory");
  return now;
#else
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
#endif
}

/// One thread faults for one granule after the other and stores how long each took.
struct TimeFaults {
  GranuleOrder order;
  std::size_t per_granule;

  APRIME_DEVICE void operator()(device_span<const Quad> data, LeasedSpan<std::uint64_t> nanoseconds) const {
    for (std::size_t i = 0; i < nanoseconds.size() && i < order.count(); ++i) {
      const std::uint64_t began = device_now();
      const PinnedSpan<const Quad> part = data.pin_span(order(i) * per_granule, 1);
      const volatile std::uint32_t* const word = part.data()->words;
      static_cast<void>(*word);
      nanoseconds[i] = device_now() - began;
    }
  }
};

struct DoNothing {
  APRIME_DEVICE void operator()(LeasedBytes<Right::read>) const {}
};

struct StoreEach {
  std::uint32_t value;

  APRIME_DEVICE void operator()(LeasedSpan<Quad> data) const {
    for (std::size_t i = thread_number(); i < data.size(); i += thread_count())
      data[i] = {{value, value, value, value}};
  }
};

}  // namespace aprime::bench
