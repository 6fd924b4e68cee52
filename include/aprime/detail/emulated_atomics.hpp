#pragma once

#include <atomic>
#include <concepts>
#include <type_traits>

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
  return aprime::detail::operate(address, [value](std::atomic_ref<T> word, std::memory_order order) {
    return word.exchange(value, order);
  });
}

template <aprime::detail::OneOf<int, unsigned, unsigned long long, unsigned short> T>
T atomicCAS(T* address, aprime::detail::Operand<T> expected, aprime::detail::Operand<T> desired) noexcept {
  return aprime::detail::operate(address, [=](std::atomic_ref<T> word, std::memory_order order) {
    T before = expected;
    word.compare_exchange_strong(before, desired, order, std::memory_order_relaxed);
    return before;
  });
}

#undef APRIME_ATOMICS_UNDER_TSAN
