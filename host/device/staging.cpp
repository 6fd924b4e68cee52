#include "host/device/staging.hpp"

#include <bit>
#include <cassert>
#include <chrono>

#include "host/os/futex.hpp"

namespace aprime::device {

StagingPool::StagingPool(unsigned buffers)
    : memory_(os::Mapped::anonymous(std::size_t{buffers} * 2 * kHalfBytes, true)),
      free_(~std::uint64_t{0} >> (kBuffersMax - buffers)) {
  assert(buffers >= 1 && buffers <= kBuffersMax);
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
  return pool_->memory_.bytes().subspan(number_ * 2 * kHalfBytes, kHalfBytes);
}

std::span<std::byte> StagingPool::Lease::second_half() const noexcept {
  return pool_->memory_.bytes().subspan((number_ * 2 + 1) * kHalfBytes, kHalfBytes);
}

}  // namespace aprime::device
