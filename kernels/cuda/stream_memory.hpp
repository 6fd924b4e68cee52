#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <new>

// Working memory of library algorithms on the GPU, in the order of a stream. It comes from what the device's
// budget of frames leaves free.

namespace aprime::kernels {

/// `size` bytes, until destruction; what uses them is queued on the stream before that. Empty if there is no
/// such memory (`error`).
class StreamMemory {
 public:
  StreamMemory(std::size_t size, cudaStream_t stream) noexcept : stream_(stream) {
    error_ = cudaMallocAsync(&data_, size, stream);
  }
  ~StreamMemory() {
    if (data_ != nullptr) static_cast<void>(cudaFreeAsync(data_, stream_));
  }
  StreamMemory(const StreamMemory&) = delete;
  StreamMemory& operator=(const StreamMemory&) = delete;

  void* data() const noexcept { return data_; }
  cudaError_t error() const noexcept { return error_; }

 private:
  cudaStream_t stream_;
  void* data_ = nullptr;
  cudaError_t error_ = cudaSuccess;
};

/// Runs an algorithm of CUB, which is called twice: for the size of the working memory that it needs, and
/// with it. `algorithm(void*, std::size_t&)` returns a cudaError_t.
template <class Algorithm>
cudaError_t with_work_memory(cudaStream_t stream, Algorithm&& algorithm) {
  std::size_t size = 0;
  const cudaError_t error = algorithm(nullptr, size);
  if (error != cudaSuccess) return error;
  const StreamMemory work(size, stream);
  return work.error() != cudaSuccess ? work.error() : algorithm(work.data(), size);
}

/// The same for Thrust, which brings its own sizes.
class StreamAllocator {
 public:
  using value_type = char;

  explicit StreamAllocator(cudaStream_t stream) noexcept : stream_(stream) {}

  char* allocate(std::ptrdiff_t size) {
    void* data = nullptr;
    if (cudaMallocAsync(&data, static_cast<std::size_t>(size), stream_) != cudaSuccess)
      throw std::bad_alloc();
    return static_cast<char*>(data);
  }
  void deallocate(char* data, std::size_t) noexcept { static_cast<void>(cudaFreeAsync(data, stream_)); }

 private:
  cudaStream_t stream_;
};

}  // namespace aprime::kernels
