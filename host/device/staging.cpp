#include "host/device/staging.hpp"

#include <bit>
#include <cassert>
#include <chrono>

#include "host/os/futex.hpp"

namespace aprime::device {

StagingPool::StagingPool(unsigned buffers)
    : owned_(os::Mapped::anonymous(buffers * kBufferBytes, true)),
      memory_(owned_.bytes()),
      free_(~std::uint64_t{0} >> (kBuffersMax - buffers)) {
  assert(buffers >= 1 && buffers <= kBuffersMax);
}

StagingPool::StagingPool(std::span<std::byte> memory, unsigned buffers) noexcept
    : memory_(memory), free_(~std::uint64_t{0} >> (kBuffersMax - buffers)) {
  assert(buffers >= 1 && buffers <= kBuffersMax && memory.size() >= buffers * kBufferBytes);
}

StagingPool::Lease StagingPool::lease() noexcept {
  for (;;) {
    const std::uint32_t seen = returned_.load();
    // Lowest number first: few buffers are ever touched, and those are in the cache.
    std::uint64_t free = free_.load();
    while (free != 0) {
      if (free_.compare_exchange_weak(free, free & (free - 1))) {
        return {*this, static_cast<unsigned>(std::countr_zero(free))};
      }
    }
    // Either the one who returns a buffer sees us waiting, or we see the buffer: both sides use sequentially
    // consistent accesses.
    waiting_.fetch_add(1);
    if (free_.load() == 0) os::futex_wait(returned_, seen, std::chrono::milliseconds(100));
    waiting_.fetch_sub(1);
  }
}

StagingPool::Lease::~Lease() {
  if (pool_ == nullptr) return;
  pool_->free_.fetch_or(std::uint64_t{1} << number_);
  if (pool_->waiting_.load() == 0) return;
  pool_->returned_.fetch_add(1);
  os::futex_wake_all(pool_->returned_);
}

std::span<std::byte> StagingPool::Lease::first_half() const noexcept {
  return pool_->memory_.subspan(number_ * kBufferBytes, kHalfBytes);
}

std::span<std::byte> StagingPool::Lease::second_half() const noexcept {
  return pool_->memory_.subspan(number_ * kBufferBytes + kHalfBytes, kHalfBytes);
}

}  // namespace aprime::device
