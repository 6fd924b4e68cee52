#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "kernels/cuda/check.hpp"

// Owners of what the CUDA runtime gives out. All belong to the device that was current when they were made.

namespace aprime::cuda {

/// Makes a GPU the calling thread's current one, for a scope: which one the caller's program uses is its own
/// business.
class CurrentGpu {
 public:
  /// \throws Error(device_failed | device_memory)
  explicit CurrentGpu(int gpu) : gpu_(gpu) {
    APRIME_CUDA_THROW(cudaGetDevice, &before_);
    if (before_ != gpu_) APRIME_CUDA_THROW(cudaSetDevice, gpu_);
  }
  ~CurrentGpu() {
    if (before_ != gpu_) APRIME_CUDA_END(cudaSetDevice, before_);
  }
  CurrentGpu(const CurrentGpu&) = delete;
  CurrentGpu& operator=(const CurrentGpu&) = delete;

 private:
  const int gpu_;
  int before_ = 0;
};

/// A stream that waits for no other one, not even for the legacy default stream.
class Stream {
 public:
  /// Whose blocks come first where there is not room for all.
  enum class Urgency : bool { usual, most };

  /// \throws Error(device_failed | device_memory)
  explicit Stream(Urgency urgency = Urgency::usual) {
    int priority = 0;
    if (urgency == Urgency::most) APRIME_CUDA_THROW(cudaDeviceGetStreamPriorityRange, nullptr, &priority);
    APRIME_CUDA_THROW(cudaStreamCreateWithPriority, &stream_, cudaStreamNonBlocking, priority);
  }
  Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  Stream& operator=(Stream&&) = delete;
  ~Stream() {
    if (stream_ != nullptr) APRIME_CUDA_END(cudaStreamDestroy, stream_);
  }
  cudaStream_t get() const noexcept { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// A place in a stream that one can wait for; it keeps no time.
class Event {
 public:
  /// \throws Error(device_failed | device_memory)
  Event() { APRIME_CUDA_THROW(cudaEventCreateWithFlags, &event_, cudaEventDisableTiming); }
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&&) = delete;
  ~Event() {
    if (event_ != nullptr) APRIME_CUDA_END(cudaEventDestroy, event_);
  }
  cudaEvent_t get() const noexcept { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Page-locked host memory, which a GPU copies from and to at full speed and while the CPU goes on.
class PageLocked {
 public:
  /// `size` in bytes. \throws Error(device_failed | device_memory)
  explicit PageLocked(std::size_t size) : size_(size) {
    APRIME_CUDA_THROW(cudaHostAlloc, &data_, size, cudaHostAllocDefault);
  }
  PageLocked(PageLocked&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  PageLocked& operator=(PageLocked&&) = delete;
  ~PageLocked() {
    if (data_ != nullptr) APRIME_CUDA_END(cudaFreeHost, data_);
  }
  std::span<std::byte> bytes() const noexcept { return {static_cast<std::byte*>(data_), size_}; }

 private:
  void* data_ = nullptr;
  std::size_t size_;
};

/// GPU memory. Giving it back waits for the kernels that run.
class GpuMemory {
 public:
  /// `size` in bytes; holds anything. \throws Error(device_failed | device_memory)
  explicit GpuMemory(std::size_t size) : size_(size) { APRIME_CUDA_THROW(cudaMalloc, &data_, size); }
  GpuMemory(GpuMemory&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  GpuMemory& operator=(GpuMemory&&) = delete;
  ~GpuMemory() {
    if (data_ != nullptr) APRIME_CUDA_END(cudaFree, data_);
  }
  std::byte* data() const noexcept { return static_cast<std::byte*>(data_); }
  std::size_t size() const noexcept { return size_; }

 private:
  void* data_ = nullptr;
  std::size_t size_;
};

}  // namespace aprime::cuda
