#pragma once

#include <cstddef>

#include "aprime/runtime.hpp"
#include "host/device/frame_memory.hpp"
#include "kernels/cuda/copy_threads.hpp"

namespace aprime::cuda {

/// The frames of a CUDA device: one allocation of GPU memory. What a kernel touches in it nobody watches, so
/// leases need no work; the strict emulated device is where a program's leases are checked.
class CudaFrames final : public device::FrameMemory {
 public:
  /// \throws Error(device_memory) if the GPU has less free than `size`; Error(invalid_argument) if it has no
  /// such memory; Error(device_failed)
  CudaFrames(int gpu, DeviceMemoryKind kind, ByteCount frame_bytes, ByteCount size, CopyThreads& copies);
  ~CudaFrames() override;
  CudaFrames(const CudaFrames&) = delete;
  CudaFrames& operator=(const CudaFrames&) = delete;

  std::byte* address(FrameIndex frame) const noexcept override {
    return static_cast<std::byte*>(memory_) + frame.value * frame_bytes_.value;
  }

  ByteCount copied_at_once() const noexcept override { return CopyThreads::kAtOnce; }
  Status fill(device::FrameBytes to, device::HomePort& home, ByteOffset at) noexcept override {
    return copies_.fill(place(to), to.size, home, at);
  }
  Status copy_home(device::FrameBytes from, device::HomePort& home, ByteOffset at) noexcept override {
    return copies_.copy_home(place(from), from.size, home, at);
  }
  Status zero(device::FrameBytes bytes) noexcept override { return copies_.zero(place(bytes), bytes.size); }
  Status read(device::FrameBytes from, std::span<std::byte> into) noexcept override {
    return copies_.read(place(from), into);
  }
  Status write(device::FrameBytes to, std::span<const std::byte> from) noexcept override {
    return copies_.write(place(to), from);
  }
  Status copy(device::FrameBytes from, FrameIndex to) noexcept override {
    return copies_.copy(place(from), address(to), from.size);
  }

  Status open(FrameIndex, FrameCount, Right) noexcept override { return {}; }
  void close(FrameIndex, FrameCount, Right) noexcept override {}
  bool is_leased(FrameIndex, FrameCount, Right) const noexcept override { return false; }
  void label(FrameIndex, FrameCount, device::RegionId, ByteOffset) noexcept override {}
  void clear_label(FrameIndex, FrameCount) noexcept override {}

 private:
  std::byte* place(device::FrameBytes b) const noexcept { return address(b.first) + b.offset.value; }

  const ByteCount frame_bytes_;
  CopyThreads& copies_;
  void* memory_ = nullptr;
};

}  // namespace aprime::cuda
