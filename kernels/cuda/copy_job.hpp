#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "host/device/device.hpp"

namespace aprime::cuda {

/// Bytes to move between device memory and somewhere else, shared by the threads that do it. Lives on the
/// stack of the thread that waits for it.
struct CopyJob {
  enum class Kind : std::uint8_t {
    from_home,    ///< home, through staging, to the device
    to_home,      ///< the device, through staging, to home
    from_memory,  ///< `memory`, through staging, to the device
    to_memory,    ///< the device, through staging, to `memory`
    zero,         ///< zeros to the device
    on_device,    ///< `memory`, which is device memory, to the device
  };

  Kind kind;
  std::byte* device;
  std::uint64_t size;
  device::HomePort* home = nullptr;
  ByteOffset at{};
  std::byte* memory = nullptr;

  // Guarded by the mutex of CopyThreads.

  /// First byte that no thread has taken yet.
  std::uint64_t next = 0;
  /// Pieces that were taken and have not ended.
  unsigned pieces = 0;
  /// The first failure.
  Status status{};
  CopyJob* following = nullptr;

  /// 1 when all is done; the job may be gone as soon as the mutex is free after that.
  std::atomic<std::uint32_t> done{0};

  bool is_taken() const noexcept { return next == size || !status.is_ok(); }
};

/// A part of a job, small enough for one slot of staging memory.
struct CopyPiece {
  std::uint64_t first = 0;
  std::uint64_t size = 0;
};

}  // namespace aprime::cuda
