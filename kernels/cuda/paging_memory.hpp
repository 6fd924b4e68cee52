#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "host/device/paging.hpp"
#include "host/sync/mutex.hpp"
#include "kernels/cuda/resources.hpp"

namespace aprime::cuda {

/// What faults inside kernels need: rings in page-locked memory, which a GPU reaches under the address that
/// the CPU has for it (unified addressing), and tables in GPU memory. Copies pass through a page-locked
/// buffer on a stream of their own. Thread-safe.
class CudaPagingMemory final : public device::PagingMemory {
 public:
  /// \throws Error(device_failed | device_memory)
  explicit CudaPagingMemory(int gpu);

  /// \throws Error(device_failed | device_memory), as the next one
  std::byte* shared(std::size_t bytes) override;
  std::byte* device(std::size_t bytes) override;
  void free(std::byte* device_memory) noexcept override;
  Status clear(std::byte* device_memory) noexcept override;
  Status upload(std::byte* to, std::span<const std::byte> from) noexcept override;

 private:
  static constexpr std::size_t kBufferBytes = std::size_t{64} << 10;

  /// The smallest of what was given back that is large enough; null if there is none.
  std::byte* reuse(std::size_t bytes) noexcept;
  Status finish(Status queued) noexcept APRIME_REQUIRES(mutex_);

  const int gpu_;
  sync::Mutex mutex_{sync::LockRank::frames};
  Stream stream_;
  PageLocked buffer_{kBufferBytes};
  std::vector<PageLocked> shared_ APRIME_GUARDED_BY(mutex_);
  std::map<std::byte*, GpuMemory> device_ APRIME_GUARDED_BY(mutex_);
  /// Given back by `free`. Used again, and until then kept: cudaFree waits for kernels that run, and one of
  /// them may be waiting for the caller.
  std::map<std::byte*, GpuMemory> unused_ APRIME_GUARDED_BY(mutex_);
};

}  // namespace aprime::cuda
