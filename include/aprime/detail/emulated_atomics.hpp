#pragma once

#include <atomic>
#include <concepts>
#include <type_traits>

#include "aprime/detail/thread_cursor.hpp"

// CUDA's atomic functions for kernels on the emulated device: for each function the operand types CUDA has.
// Each returns the value before the operation.
//
// CUDA's are relaxed. These are sequentially consistent: a locked instruction is a full fence on x86 anyway,
// and ThreadSanitizer, which does not understand fences, then accepts CUDA's fence-and-atomic idioms.

#if defined(__SANITIZE_THREAD__)
#define APRIME_ATOMICS_UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define APRIME_ATOMICS_UNDER_TSAN 1
#endif
#endif
#ifdef APRIME_ATOMICS_UNDER_TSAN
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
#endif

namespace aprime::detail {

template <typename T, typename... Allowed>
concept OneOf = (std::same_as<T, Allowed> || ...);

template <typename T>
concept AtomicInteger = OneOf<T, int, unsigned, long long, unsigned long long>;

template <typename T>
concept AtomicBits = OneOf<T, int, unsigned, unsigned long long>;

/// The operand type, kept out of deduction so that `atomicAdd(&counter, 1)` converts as CUDA's overloads do.
template <typename T>
using Operand = std::type_identity_t<T>;

/// `operation(word, order)`: one atomic operation, in that order, on a word whose page may be missing.
template <typename T, typename Operation>
T operate(T* address, Operation operation) noexcept {
  const std::atomic_ref<T> word(*address);
#ifdef APRIME_ATOMICS_UNDER_TSAN
  // ThreadSanitizer does an atomic operation under a lock of its own, unless it is relaxed. A kernel that is
  // stopped there, because the page cannot come, would never give the lock back.
  __tsan_release(address);
  const T before = operation(word, std::memory_order_relaxed);
  __tsan_acquire(address);
  return before;
#else
  return operation(word, std::memory_order_seq_cst);
#endif
}

/// Where the CPU thread's last atomic operation was that changed nothing, which kernel thread made it, and
/// how many such it has made since. Atomic for ThreadSanitizer, which takes kernel threads for threads.
inline thread_local constinit std::atomic<const void*> futile_at{nullptr};
inline thread_local constinit std::atomic<unsigned> futile_thread{0};
inline thread_local constinit std::atomic<unsigned> futile_tries{0};

/// Lets the other threads of the block run, if the caller is a kernel thread. Defined by the executor.
void give_way() noexcept;

/// To be called after an atomic operation that changed nothing. A thread that does the same again and again
/// waits for another one: of another CPU thread, which soon has done what it waits for, or of its own block,
/// which needs a turn for that.
inline void note_futile_try(const void* at) noexcept {
  constexpr unsigned tries_max = 256;
  constexpr auto relaxed = std::memory_order_relaxed;
  const unsigned thread = threadIdx.x | threadIdx.y << 10 | threadIdx.z << 20;
  if (futile_at.load(relaxed) == at && futile_thread.load(relaxed) == thread) {
    const unsigned tries = futile_tries.load(relaxed) + 1;
    futile_tries.store(tries % tries_max, relaxed);
    if (tries == tries_max) give_way();
  } else {
    futile_at.store(at, relaxed);
    futile_thread.store(thread, relaxed);
    futile_tries.store(0, relaxed);
  }
}

template <typename T, typename Change>
T change_atomically(T* address, Change change) noexcept {
  return operate(address, [change](std::atomic_ref<T> word, std::memory_order order) {
    T before = word.load(std::memory_order_relaxed);
    while (!word.compare_exchange_weak(before, change(before), order, std::memory_order_relaxed)) {
    }
    return before;
  });
}

}  // namespace aprime::detail

template <aprime::detail::OneOf<int, unsigned, unsigned long long, float, double> T>
T atomicAdd(T* address, aprime::detail::Operand<T> value) noexcept {
  if constexpr (std::is_integral_v<T>) {
    return aprime::detail::operate(address, [value](std::atomic_ref<T> word, std::memory_order order) {
      return word.fetch_add(value, order);
    });
  } else {
    return aprime::detail::change_atomically(address, [value](T before) { return before + value; });
  }
}

template <aprime::detail::OneOf<int, unsigned> T>
T atomicSub(T* address, aprime::detail::Operand<T> value) noexcept {
  return aprime::detail::operate(address, [value](std::atomic_ref<T> word, std::memory_order order) {
    return word.fetch_sub(value, order);
  });
}

template <aprime::detail::AtomicInteger T>
T atomicMin(T* address, aprime::detail::Operand<T> value) noexcept {
  return aprime::detail::change_atomically(address,
                                           [value](T before) { return value < before ? value : before; });
}

template <aprime::detail::AtomicInteger T>
T atomicMax(T* address, aprime::detail::Operand<T> value) noexcept {
  return aprime::detail::change_atomically(address,
                                           [value](T before) { return before < value ? value : before; });
}

template <aprime::detail::AtomicBits T>
T atomicAnd(T* address, aprime::detail::Operand<T> value) noexcept {
  return aprime::detail::operate(address, [value](std::atomic_ref<T> word, std::memory_order order) {
    return word.fetch_and(value, order);
  });
}

template <aprime::detail::AtomicBits T>
T atomicOr(T* address, aprime::detail::Operand<T> value) noexcept {
  return aprime::detail::operate(address, [value](std::atomic_ref<T> word, std::memory_order order) {
    return word.fetch_or(value, order);
  });
}

template <aprime::detail::AtomicBits T>
T atomicXor(T* address, aprime::detail::Operand<T> value) noexcept {
  return aprime::detail::operate(address, [value](std::atomic_ref<T> word, std::memory_order order) {
    return word.fetch_xor(value, order);
  });
}

template <aprime::detail::OneOf<int, unsigned, unsigned long long, float> T>
T atomicExch(T* address, aprime::detail::Operand<T> value) noexcept {
  const T before = aprime::detail::operate(
      address,
      [value](std::atomic_ref<T> word, std::memory_order order) { return word.exchange(value, order); });
  if constexpr (std::is_integral_v<T>)
    if (before == value) aprime::detail::note_futile_try(address);
  return before;
}

template <aprime::detail::OneOf<int, unsigned, unsigned long long, unsigned short> T>
T atomicCAS(T* address, aprime::detail::Operand<T> expected, aprime::detail::Operand<T> desired) noexcept {
  const T found = aprime::detail::operate(address, [=](std::atomic_ref<T> word, std::memory_order order) {
    T before = expected;
    word.compare_exchange_strong(before, desired, order, std::memory_order_relaxed);
    return before;
  });
  if (found != expected) aprime::detail::note_futile_try(address);
  return found;
}

#undef APRIME_ATOMICS_UNDER_TSAN
