#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "aprime/units.hpp"
#include "host/os/memory.hpp"

namespace aprime::device {

/// Buffers that bytes pass through on their way to a device, reserved when the pool is made so that a fault
/// needs no memory to be served. A buffer becomes real memory when it is first used; the same few are used
/// again and again.
///
/// Thread-safe, lock-free while buffers are left. Usable inside a signal handler.
class StagingPool {
 public:
  /// Each half of a buffer holds the largest granule.
  static constexpr std::size_t kHalfBytes = std::size_t{1} << GranuleSize::kLog2Max;
  static constexpr std::size_t kBufferBytes = 2 * kHalfBytes;
  static constexpr unsigned kBuffersMax = 64;

  /// \throws Error(resources)
  explicit StagingPool(unsigned buffers);
  /// In memory of somebody else's, which must outlive this: `buffers * kBufferBytes` bytes.
  StagingPool(std::span<std::byte> memory, unsigned buffers) noexcept;

  /// Holds one buffer, which goes home on destruction.
  class Lease {
   public:
    Lease(Lease&& other) noexcept : pool_(std::exchange(other.pool_, nullptr)), number_(other.number_) {}
    ~Lease();
    Lease& operator=(Lease&&) = delete;

    std::span<std::byte> first_half() const noexcept;
    std::span<std::byte> second_half() const noexcept;

   private:
    friend StagingPool;
    Lease(StagingPool& pool, unsigned number) noexcept : pool_(&pool), number_(number) {}

    StagingPool* pool_;
    unsigned number_;
  };
  /// Waits while all buffers are in use. So a thread holds at most one at a time, and meanwhile waits for
  /// nothing but I/O: the wait ends.
  Lease lease() noexcept;
  /// All of it.
  std::span<std::byte> memory() const noexcept { return memory_; }

 private:
  /// Empty if the memory is somebody else's.
  os::Mapped owned_;
  std::span<std::byte> memory_;
  std::atomic<std::uint64_t> free_;
  std::atomic<std::uint32_t> waiting_{0};
  std::atomic<std::uint32_t> returned_{0};
};

}  // namespace aprime::device
