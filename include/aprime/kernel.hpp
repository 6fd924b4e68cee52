#pragma once

// What kernel source may use on every device. Compiled by nvcc (or clang in CUDA mode) this header adds only
// the macros and dynamic_shared(), and the built-ins are CUDA's own. Compiled by a plain C++ compiler it adds
// the built-ins as well, in the global namespace, for kernels that run on the emulated device.
//
// Include it in kernel source only, and not together with the CUDA runtime's headers in a file that nvcc does
// not compile: those define `__shared__` for such files too, to nothing useful.
//
// On the emulated device the threads of a block take turns on one CPU thread, and a turn ends where a thread
// waits: at a barrier, in a warp primitive, in __nanosleep, or in atomicCAS and atomicExch when some hundred
// in a row have changed nothing. A loop that waits for what another thread of the block stores must contain
// one of these; without it the loop never ends.

#ifdef __CUDACC__

#define APRIME_HOST_DEVICE __host__ __device__
#define APRIME_DEVICE __device__

namespace aprime {

/// Dynamic shared memory of the calling block, `Grid::shared_bytes` long, 16-byte aligned. All calls in a
/// block, whatever their T, return the same address. Contents are indeterminate when the block starts.
template <typename T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char aprime_dynamic_shared_bytes[];
  return reinterpret_cast<T*>(aprime_dynamic_shared_bytes);
}

}  // namespace aprime

#else

#define APRIME_HOST_DEVICE
#define APRIME_DEVICE

#include "aprime/detail/emulated_atomics.hpp"
#include "aprime/detail/emulated_builtins.hpp"

namespace aprime {

/// Dynamic shared memory of the calling block, `Grid::shared_bytes` long, 16-byte aligned. All calls in a
/// block, whatever their T, return the same address. Contents are indeterminate when the block starts.
/// Null when the launch asked for none.
template <typename T>
[[nodiscard]] T* dynamic_shared() noexcept {
  static_assert(alignof(T) <= 16, "dynamic shared memory is 16-byte aligned");
  return static_cast<T*>(detail::dynamic_shared_base);
}

}  // namespace aprime

#endif
