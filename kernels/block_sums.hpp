#pragma once

#include "aprime/kernel.hpp"

namespace aprime::kernels {

// What the threads of a block compute together, by warp shuffles. For blocks of `threads` threads in one row,
// a multiple of 32 and at most 1024; all of them must call, and a second call in one kernel needs a barrier
// in between.

/// Lane 0 gets the sum of the first `lanes` lanes, a power of two. All 32 lanes must call it.
template <class T>
APRIME_DEVICE T warp_sum(T value, unsigned lanes) {
  for (unsigned step = lanes / 2; step > 0; step /= 2) value += __shfl_down_sync(0xffff'ffffU, value, step);
  return value;
}

/// Thread 0 gets the sum over the block; the others get something else.
template <unsigned threads, class T>
APRIME_DEVICE T block_sum(T value) {
  constexpr unsigned kWarps = threads / 32;
  __shared__ T warp_sums[kWarps];
  value = warp_sum(value, 32);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x >= 32) return value;
  return warp_sum(threadIdx.x < kWarps ? warp_sums[threadIdx.x] : T{}, kWarps);
}

/// Each lane gets the sum of its own value and those of the lanes before it (Hillis and Steele, "Data
/// parallel algorithms", CACM 29 (1986)). All 32 lanes must call it.
template <class T>
APRIME_DEVICE T warp_prefix_sum(T value) {
  const unsigned lane = threadIdx.x % 32;
  for (unsigned step = 1; step < 32; step *= 2) {
    const T before = __shfl_up_sync(0xffff'ffffU, value, step);
    if (lane >= step) value += before;
  }
  return value;
}

/// Each thread gets the sum of its own value and those of the threads before it, and in `total` the sum over
/// the block.
template <unsigned threads, class T>
APRIME_DEVICE T block_prefix_sum(T value, T& total) {
  constexpr unsigned kWarps = threads / 32;
  __shared__ T warp_ends[kWarps];
  value = warp_prefix_sum(value);
  if (threadIdx.x % 32 == 31) warp_ends[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x < 32) {
    const T end = warp_prefix_sum(threadIdx.x < kWarps ? warp_ends[threadIdx.x] : T{});
    if (threadIdx.x < kWarps) warp_ends[threadIdx.x] = end;
  }
  __syncthreads();
  total = warp_ends[kWarps - 1];
  return threadIdx.x < 32 ? value : value + warp_ends[threadIdx.x / 32 - 1];
}

}  // namespace aprime::kernels
