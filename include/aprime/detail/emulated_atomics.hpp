#pragma once

#include <atomic>
#include <concepts>
#include <type_traits>

// CUDA's atomic functions for kernels on the emulated device: for each function the operand types CUDA has.
// Each returns the value before the operation.
//
// CUDA's are relaxed. These are sequentially consistent: a locked instruction is a full fence on x86 anyway,
// and ThreadSanitizer, which does not understand fences, then accepts CUDA's fence-and-atomic idioms.

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

template <typename T, typename Change>
T change_atomically(T* address, Change change) noexcept {
  const std::atomic_ref<T> word(*address);
  T before = word.load(std::memory_order_relaxed);
  while (!word.compare_exchange_weak(before, change(before))) {
  }
  return before;
}

}  // namespace aprime::detail

template <aprime::detail::OneOf<int, unsigned, unsigned long long, float, double> T>
T atomicAdd(T* address, aprime::detail::Operand<T> value) noexcept {
  if constexpr (std::is_integral_v<T>) {
    return std::atomic_ref<T>(*address).fetch_add(value);
  } else {
    return aprime::detail::change_atomically(address, [value](T before) { return before + value; });
  }
}

template <aprime::detail::OneOf<int, unsigned> T>
T atomicSub(T* address, aprime::detail::Operand<T> value) noexcept {
  return std::atomic_ref<T>(*address).fetch_sub(value);
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
  return std::atomic_ref<T>(*address).fetch_and(value);
}

template <aprime::detail::AtomicBits T>
T atomicOr(T* address, aprime::detail::Operand<T> value) noexcept {
  return std::atomic_ref<T>(*address).fetch_or(value);
}

template <aprime::detail::AtomicBits T>
T atomicXor(T* address, aprime::detail::Operand<T> value) noexcept {
  return std::atomic_ref<T>(*address).fetch_xor(value);
}

template <aprime::detail::OneOf<int, unsigned, unsigned long long, float> T>
T atomicExch(T* address, aprime::detail::Operand<T> value) noexcept {
  return std::atomic_ref<T>(*address).exchange(value);
}

template <aprime::detail::OneOf<int, unsigned, unsigned long long, unsigned short> T>
T atomicCAS(T* address, aprime::detail::Operand<T> expected, aprime::detail::Operand<T> desired) noexcept {
  std::atomic_ref<T>(*address).compare_exchange_strong(expected, desired);
  return expected;
}
