#pragma once

#include "aprime/detail/thread_cursor.hpp"

#include <bit>
#include <concepts>
#include <cstdint>
#include <type_traits>

// CUDA's built-ins for kernels on the emulated device. Semantics follow the CUDA C++ Programming Guide ("C++
// language extensions") and, for shuffle bounds, the PTX instruction `shfl.sync`. Where CUDA leaves the
// result undefined, the choice made here is stated.
//
// All of them may be called only from a kernel. A call that waits (barrier, warp primitive, __nanosleep) must
// not be made from a noexcept destructor during unwinding; anywhere else is fine, inside a catch block too.

namespace aprime::detail {

enum class WarpOp : std::uint8_t { sync, shfl, shfl_up, shfl_down, shfl_xor, ballot, any, all, match_any };

/// How the threads of a block voted at a barrier.
struct BarrierVotes {
  unsigned yes;
  unsigned arrived;
};

// Defined by the executor.

/// Waits until every thread of the block has arrived or ended. Orders all memory accesses before it.
[[nodiscard]] BarrierVotes block_barrier(bool vote) noexcept;

/// Waits until every live lane named in `mask` has called with the same `op` and `mask`; returns op's result.
/// `operand` and `width` say which lane a shuffle reads.
std::uint64_t warp_rendezvous(WarpOp op, unsigned mask, std::uint64_t value, unsigned operand,
                              unsigned width) noexcept;

/// See __activemask().
[[nodiscard]] unsigned converged_lanes() noexcept;

/// See __nanosleep().
void sleep_thread(unsigned nanoseconds) noexcept;

/// See __threadfence().
void fence() noexcept;

/// A type whose values shuffles and matches move between lanes.
template <typename T>
concept WarpWord = std::is_trivially_copyable_v<T> &&(sizeof(T) == 4 || sizeof(T) == 8);

template <WarpWord T>
[[nodiscard]] std::uint64_t to_bits(T value) noexcept {
  if constexpr (sizeof(T) == 4) {
    return std::bit_cast<std::uint32_t>(value);
  } else {
    return std::bit_cast<std::uint64_t>(value);
  }
}

template <WarpWord T>
[[nodiscard]] T from_bits(std::uint64_t bits) noexcept {
  if constexpr (sizeof(T) == 4) {
    return std::bit_cast<T>(static_cast<std::uint32_t>(bits));
  } else {
    return std::bit_cast<T>(bits);
  }
}

template <WarpWord T>
[[nodiscard]] T shuffle(WarpOp op, unsigned mask, T value, unsigned operand, int width) noexcept {
  return from_bits<T>(warp_rendezvous(op, mask, to_bits(value), operand, static_cast<unsigned>(width)));
}

}  // namespace aprime::detail

// A block stays on its worker and a worker runs one block at a time, so one copy per worker is one per block.
// As in CUDA, contents are indeterminate when the block starts: in truth, what the previous block left.
#undef __shared__
#define __shared__ static thread_local

using aprime::detail::blockDim;
using aprime::detail::blockIdx;
using aprime::detail::gridDim;
using aprime::detail::threadIdx;

inline constexpr int warpSize = static_cast<int>(aprime::warp_lanes);

/// Threads that ended count as arrived, as on the hardware. A barrier that some live thread can never reach
/// stops the kernel with a message.
inline void __syncthreads() noexcept { static_cast<void>(aprime::detail::block_barrier(false)); }

[[nodiscard]] inline int __syncthreads_count(int predicate) noexcept {
  return static_cast<int>(aprime::detail::block_barrier(predicate != 0).yes);
}

[[nodiscard]] inline int __syncthreads_and(int predicate) noexcept {
  const aprime::detail::BarrierVotes votes = aprime::detail::block_barrier(predicate != 0);
  return votes.yes == votes.arrived ? 1 : 0;
}

[[nodiscard]] inline int __syncthreads_or(int predicate) noexcept {
  return aprime::detail::block_barrier(predicate != 0).yes != 0 ? 1 : 0;
}

// Warp primitives. All live lanes named in `mask` must make the same call with the same mask; lanes that
// ended are left out. A mask that does not name the caller, and a lane that can never arrive, stop the kernel
// with a message. Only __syncwarp orders memory, and ThreadSanitizer is told exactly that.

inline void __syncwarp(unsigned mask = 0xffff'ffffU) noexcept {
  aprime::detail::warp_rendezvous(aprime::detail::WarpOp::sync, mask, 0, 0, aprime::warp_lanes);
}

// Shuffles. `width` is a power of two up to 32. Undefined in CUDA, the caller's own value here: the value of
// a lane that takes no part.

template <aprime::detail::WarpWord T>
[[nodiscard]] T __shfl_sync(unsigned mask, T value, int source_lane, int width = warpSize) noexcept {
  const auto operand = static_cast<unsigned>(source_lane);
  return aprime::detail::shuffle(aprime::detail::WarpOp::shfl, mask, value, operand, width);
}

template <aprime::detail::WarpWord T>
[[nodiscard]] T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) noexcept {
  return aprime::detail::shuffle(aprime::detail::WarpOp::shfl_up, mask, value, delta, width);
}

template <aprime::detail::WarpWord T>
[[nodiscard]] T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) noexcept {
  return aprime::detail::shuffle(aprime::detail::WarpOp::shfl_down, mask, value, delta, width);
}

template <aprime::detail::WarpWord T>
[[nodiscard]] T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize) noexcept {
  const auto operand = static_cast<unsigned>(lane_mask);
  return aprime::detail::shuffle(aprime::detail::WarpOp::shfl_xor, mask, value, operand, width);
}

[[nodiscard]] inline unsigned __ballot_sync(unsigned mask, int predicate) noexcept {
  const std::uint64_t vote = predicate != 0 ? 1 : 0;
  return static_cast<unsigned>(
      aprime::detail::warp_rendezvous(aprime::detail::WarpOp::ballot, mask, vote, 0, 32));
}

[[nodiscard]] inline int __any_sync(unsigned mask, int predicate) noexcept {
  const std::uint64_t vote = predicate != 0 ? 1 : 0;
  return static_cast<int>(aprime::detail::warp_rendezvous(aprime::detail::WarpOp::any, mask, vote, 0, 32));
}

[[nodiscard]] inline int __all_sync(unsigned mask, int predicate) noexcept {
  const std::uint64_t vote = predicate != 0 ? 1 : 0;
  return static_cast<int>(aprime::detail::warp_rendezvous(aprime::detail::WarpOp::all, mask, vote, 0, 32));
}

/// Lanes of `mask` that hold the same bits.
template <aprime::detail::WarpWord T>
[[nodiscard]] unsigned __match_any_sync(unsigned mask, T value) noexcept {
  const std::uint64_t bits = aprime::detail::to_bits(value);
  return static_cast<unsigned>(
      aprime::detail::warp_rendezvous(aprime::detail::WarpOp::match_any, mask, bits, 0, 32));
}

/// The lanes that run together with the caller. CUDA promises only that the caller is among them. Here the
/// caller waits until every live lane of its warp waits for something, sleeps or has ended, and the answer is
/// the lanes that then wait at the same place in the program: the most that a GPU could answer.
[[nodiscard, gnu::always_inline]] inline unsigned __activemask() noexcept {
  return aprime::detail::converged_lanes();
}

/// Lets the other threads of the block run, and the other workers too when no thread of the block can. A loop
/// that waits for another thread's store must call it. The duration is a hint, as in CUDA: it passes only
/// when no thread of the block can run, and from 5 µs on.
inline void __nanosleep(unsigned nanoseconds) noexcept { aprime::detail::sleep_thread(nanoseconds); }

inline void __threadfence() noexcept { aprime::detail::fence(); }
inline void __threadfence_block() noexcept { aprime::detail::fence(); }
inline void __threadfence_system() noexcept { aprime::detail::fence(); }

// Bit counting.

[[nodiscard]] inline int __popc(unsigned value) noexcept { return std::popcount(value); }
[[nodiscard]] inline int __popcll(unsigned long long value) noexcept { return std::popcount(value); }
[[nodiscard]] inline int __clz(int value) noexcept { return std::countl_zero(static_cast<unsigned>(value)); }
[[nodiscard]] inline int __clzll(long long value) noexcept {
  return std::countl_zero(static_cast<unsigned long long>(value));
}
/// One-based position of the lowest set bit; 0 when there is none.
[[nodiscard]] inline int __ffs(int value) noexcept {
  return value == 0 ? 0 : std::countr_zero(static_cast<unsigned>(value)) + 1;
}
[[nodiscard]] inline int __ffsll(long long value) noexcept {
  return value == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(value)) + 1;
}
