#pragma once

#include <cstdint>

#include "aprime/kernel.hpp"

// Atomic operations of device code on words that several device threads, or device and host, share. Under
// CUDA with the scope that is meant; on the emulated device every scope is the system's.

#ifdef __CUDACC__
#include <cuda/atomic>
#else
#include <atomic>
#endif

namespace aprime::detail {

#ifdef __CUDACC__

/// Of words in device memory.
template <class T>
using DeviceWord = cuda::atomic_ref<T, cuda::thread_scope_device>;
/// Of words that the host writes or reads.
template <class T>
using SharedWord = cuda::atomic_ref<T, cuda::thread_scope_system>;
namespace order {
/// Of a load that is repeated until it sees something: on a GPU every acquire empties a multiprocessor's
/// cache, for all its warps. After such a load has seen it, call acquire_seen() or acquire_seen_of_host().
inline constexpr auto look = cuda::memory_order_relaxed;
inline constexpr auto relaxed = cuda::memory_order_relaxed;
inline constexpr auto acquire = cuda::memory_order_acquire;
inline constexpr auto release = cuda::memory_order_release;
inline constexpr auto acq_rel = cuda::memory_order_acq_rel;
}  // namespace order

/// Of what a device thread has stored; of what the host has.
__device__ inline void acquire_seen() noexcept {
  cuda::atomic_thread_fence(cuda::memory_order_acquire, cuda::thread_scope_device);
}
__device__ inline void acquire_seen_of_host() noexcept {
  cuda::atomic_thread_fence(cuda::memory_order_acquire, cuda::thread_scope_system);
}

#else

template <class T>
using DeviceWord = std::atomic_ref<T>;
template <class T>
using SharedWord = std::atomic_ref<T>;
namespace order {
inline constexpr auto look = std::memory_order_acquire;
inline constexpr auto relaxed = std::memory_order_relaxed;
inline constexpr auto acquire = std::memory_order_acquire;
inline constexpr auto release = std::memory_order_release;
inline constexpr auto acq_rel = std::memory_order_acq_rel;
}  // namespace order

inline void acquire_seen() noexcept {}
inline void acquire_seen_of_host() noexcept {}

#endif

}  // namespace aprime::detail
