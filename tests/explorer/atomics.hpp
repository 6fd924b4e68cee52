#pragma once

// Included before all else in programs that explore the library's own locks: from here on std::atomic is a
// word whose operations are steps of an Explorer. What of the standard library needs the true one comes
// first.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

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
    step();
    const T value = value_;
    // Others may come before what it points to is looked at.
    if constexpr (is_pointer_v<T>) step();
    return value;
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
    if (value_ != before && aprime::explored::Explorer::is_running())
      aprime::explored::Explorer::running().changed();
    return before;
  }

  T value_;
};

class explored_mutex {
 public:
  constexpr explored_mutex() = default;
  void lock() noexcept {
    if (aprime::explored::Explorer::is_running())
      aprime::explored::Explorer::running().wait_until([this] { return !is_locked_; });
    is_locked_ = true;
  }
  void unlock() noexcept {
    is_locked_ = false;
    if (aprime::explored::Explorer::is_running()) aprime::explored::Explorer::running().changed();
  }

 private:
  bool is_locked_ = false;
};

}  // namespace std

inline int explored_yield() noexcept {
  aprime::explored::Explorer::running().sleep();
  return 0;
}

#define atomic explored_atomic
#define mutex explored_mutex
#define sched_yield explored_yield
