#include "kernels/cuda/frames.hpp"

#include <fmt/format.h>

#include "kernels/cuda/resources.hpp"

namespace aprime::cuda {
namespace {

/// CUDA would hand out more managed memory than the GPU has and move pages behind our back, and it would
/// answer a too large cudaMalloc without saying how much there is.
void require_free_memory(ByteCount size) {
  std::size_t free = 0;
  std::size_t total = 0;
  APRIME_CUDA_THROW(cudaMemGetInfo, &free, &total);
  if (size.value <= free) return;
  throw Error(
      Errc::device_memory,
      fmt::format("DeviceOptions::memory: {} bytes are more than the GPU has free, which is {} of {}; "
                  "ask for less (--device-memory), or end what else uses the GPU",
                  size.value, free, total));
}

void require_managed_memory(int gpu) {
  int concurrent = 0;
  APRIME_CUDA_THROW(cudaDeviceGetAttribute, &concurrent, cudaDevAttrConcurrentManagedAccess, gpu);
  if (concurrent != 0) return;
  throw Error(Errc::invalid_argument,
              "DeviceOptions::memory_kind: this GPU cannot share managed memory with the CPU while a kernel "
              "runs; use device memory (--device-memory-kind device)");
}

/// Keeps managed memory on the GPU from the start. Its pages would else arrive one fault after the other.
void settle_on_gpu(int gpu, void* memory, std::size_t size) {
  const Stream stream;
#if CUDART_VERSION >= 13000
  const cudaMemLocation location{.type = cudaMemLocationTypeDevice, .id = gpu};
  APRIME_CUDA_THROW(cudaMemAdvise, memory, size, cudaMemAdviseSetPreferredLocation, location);
  APRIME_CUDA_THROW(cudaMemPrefetchAsync, memory, size, location, 0, stream.get());
#else
  APRIME_CUDA_THROW(cudaMemAdvise, memory, size, cudaMemAdviseSetPreferredLocation, gpu);
  APRIME_CUDA_THROW(cudaMemPrefetchAsync, memory, size, gpu, stream.get());
#endif
  APRIME_CUDA_THROW(cudaStreamSynchronize, stream.get());
}

}  // namespace

CudaFrames::CudaFrames(int gpu, DeviceMemoryKind kind, ByteCount frame_bytes, ByteCount size,
                       CopyThreads& copies)
    : frame_bytes_(frame_bytes), copies_(copies) {
  require_free_memory(size);
  if (kind == DeviceMemoryKind::device) {
    APRIME_CUDA_THROW(cudaMalloc, &memory_, size.value);
    return;
  }
  require_managed_memory(gpu);
  APRIME_CUDA_THROW(cudaMallocManaged, &memory_, size.value, cudaMemAttachGlobal);
  try {
    settle_on_gpu(gpu, memory_, static_cast<std::size_t>(size.value));
  } catch (...) {
    APRIME_CUDA_END(cudaFree, memory_);
    throw;
  }
}

CudaFrames::~CudaFrames() { APRIME_CUDA_END(cudaFree, memory_); }

}  // namespace aprime::cuda
