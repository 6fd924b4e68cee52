#pragma once

#include <cuda_runtime_api.h>

#include "aprime/error.hpp"

// Every call to the CUDA runtime goes through one of these macros, which names the call where it fails:
//
//   APRIME_CUDA_THROW(cudaMalloc, &address, size);           throws Error
//   if (const Status s = APRIME_CUDA_TRY(cudaMemcpyAsync, ...); !s.is_ok()) ...
//   APRIME_CUDA_END(cudaFree, address);                      in destructors: nothing can be done

namespace aprime::cuda {

/// "CALL: what CUDA says (its name for it)". Static storage: of a few texts, the first ones;
/// async-signal-safe but for a short lock.
const char* failure_text(const char* call, cudaError_t error) noexcept;

/// Clears the thread's last error, which is told once.
inline Status status_of(cudaError_t error, const char* call) noexcept {
  if (error == cudaSuccess) return {};
  static_cast<void>(cudaGetLastError());
  return {Errc::device_failed, 0, {}, failure_text(call, error)};
}

/// \throws Error(device_failed; device_memory where CUDA is out of memory)
void throw_if_failed(cudaError_t error, const char* call);

}  // namespace aprime::cuda

#define APRIME_CUDA_THROW(call, ...) ::aprime::cuda::throw_if_failed(call(__VA_ARGS__), #call)
#define APRIME_CUDA_TRY(call, ...) ::aprime::cuda::status_of(call(__VA_ARGS__), #call)
// A GPU that has failed answers every call with that failure, which has been told; a process that ends may
// have unloaded the driver.
#define APRIME_CUDA_END(call, ...) static_cast<void>(call(__VA_ARGS__))
