#pragma once

// Included before all else in programs that explore the library's own locks: from here on std::atomic is a
// word whose operations are steps of an Explorer. What of the standard library needs the true one comes
// first.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <shared_mutex>
#include <string>
#include <thread>
#include <type_traits>

#include "tests/explorer/explorer.hpp"

namespace std {

template <class T>
class explored_atomic {
 public:
  explored_atomic() = default;
  constexpr explored_atomic(T value) noexcept : value_(value) {}

  T load(memory_order = memory_order_seq_cst) const noexcept {
    // Pointers are to tables, and set once.
    if constexpr (!is_pointer_v<T>) step();
    return value_;
  }
  void store(T value, memory_order = memory_order_seq_cst) noexcept { exchange(value); }
  T exchange(T value, memory_order = memory_order_seq_cst) noexcept {
    return change([value](T) { return value; });
  }
  T fetch_add(T value, memory_order = memory_order_seq_cst) noexcept {
    return change([value](T before) { return static_cast<T>(before + value); });
  }
  T fetch_sub(T value, memory_order = memory_order_seq_cst) noexcept {
    return change([value](T before) { return static_cast<T>(before - value); });
  }
  T fetch_or(T value, memory_order = memory_order_seq_cst) noexcept {
    return change([value](T before) { return static_cast<T>(before | value); });
  }
  T fetch_and(T value, memory_order = memory_order_seq_cst) noexcept {
    return change([value](T before) { return static_cast<T>(before & value); });
  }
  bool compare_exchange_strong(T& expected, T desired, memory_order = memory_order_seq_cst,
                               memory_order = memory_order_seq_cst) noexcept {
    const T wanted = expected;
    expected = change([&](T before) { return before == wanted ? desired : before; });
    return expected == wanted;
  }
  bool compare_exchange_weak(T& expected, T desired, memory_order = memory_order_seq_cst,
                             memory_order = memory_order_seq_cst) noexcept {
    return compare_exchange_strong(expected, desired);
  }

 private:
  static void step() noexcept {
    if (aprime::explored::Explorer::is_running()) aprime::explored::Explorer::running().step();
  }
  template <class Change>
  T change(const Change& change) noexcept {
    step();
    const T before = value_;
    value_ = change(before);
    return before;
  }

  T value_;
};

}  // namespace std

#define atomic explored_atomic
