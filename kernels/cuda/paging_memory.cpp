#include "kernels/cuda/paging_memory.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace aprime::cuda {

CudaPagingMemory::CudaPagingMemory(int gpu) : gpu_(gpu) {}

std::byte* CudaPagingMemory::shared(std::size_t bytes) {
  PageLocked memory(bytes);
  std::memset(memory.bytes().data(), 0, bytes);
  std::byte* const at = memory.bytes().data();
  const sync::Lock lock(mutex_);
  shared_.push_back(std::move(memory));
  return at;
}

std::byte* CudaPagingMemory::device(std::size_t bytes) {
  const CurrentGpu current(gpu_);
  std::byte* at = reuse(bytes);
  if (at == nullptr) {
    GpuMemory memory(bytes);
    at = memory.data();
    const sync::Lock lock(mutex_);
    device_.emplace(at, std::move(memory));
  }
  if (const Status status = clear(at); !status.is_ok()) {
    free(at);
    throw Error(status.code, status.reason);
  }
  return at;
}

std::byte* CudaPagingMemory::reuse(std::size_t bytes) noexcept {
  const sync::Lock lock(mutex_);
  auto smallest = unused_.end();
  for (auto at = unused_.begin(); at != unused_.end(); ++at)
    if (at->second.size() >= bytes &&
        (smallest == unused_.end() || at->second.size() < smallest->second.size()))
      smallest = at;
  if (smallest == unused_.end()) return nullptr;
  return device_.insert(unused_.extract(smallest)).position->first;
}

void CudaPagingMemory::free(std::byte* device_memory) noexcept {
  const sync::Lock lock(mutex_);
  unused_.insert(device_.extract(device_memory));
}

Status CudaPagingMemory::clear(std::byte* device_memory) noexcept {
  const sync::Lock lock(mutex_);
  const std::size_t size = device_.find(device_memory)->second.size();
  return finish(APRIME_CUDA_TRY(cudaMemsetAsync, device_memory, 0, size, stream_.get()));
}

Status CudaPagingMemory::upload(std::byte* to, std::span<const std::byte> from) noexcept {
  const sync::Lock lock(mutex_);
  while (!from.empty()) {
    const std::size_t now = std::min(from.size(), kBufferBytes);
    std::memcpy(buffer_.bytes().data(), from.data(), now);
    const Status status = finish(APRIME_CUDA_TRY(cudaMemcpyAsync, to, buffer_.bytes().data(), now,
                                                 cudaMemcpyHostToDevice, stream_.get()));
    if (!status.is_ok()) return status;
    to += now;
    from = from.subspan(now);
  }
  return {};
}

Status CudaPagingMemory::finish(Status queued) noexcept {
  return queued.is_ok() ? APRIME_CUDA_TRY(cudaStreamSynchronize, stream_.get()) : queued;
}

}  // namespace aprime::cuda
