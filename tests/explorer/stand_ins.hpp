#pragma once

// Included before all else in programs that explore the library's own locks: from here on std::atomic is a
// word whose operations are steps of an Explorer. What of the standard library needs the true one comes
// first.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <semaphore>
#include <shared_mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/explorer/explorer.hpp"

namespace std {

/// As std::memory_order is called where words are explored.
constexpr aprime::explored::Order explored_order(memory_order how) noexcept {
  using aprime::explored::Order;
  switch (how) {
    case memory_order_relaxed: return Order::relaxed;
    case memory_order_release: return Order::release;
    case memory_order_acq_rel: return Order::acq_rel;
    case memory_order_seq_cst: return Order::seq_cst;
    default: return Order::acquire;
  }
}

template <class T>
class explored_atomic_ref {
 public:
  explicit explored_atomic_ref(T& word) noexcept : word_(word) {}

  T load(memory_order how = memory_order_seq_cst) const noexcept {
    if (!is_running()) return word_;
    running().step();
    const T value = running().memory().load(word_, explored_order(how));
    // Others may come before what it points to is looked at.
    if constexpr (is_pointer_v<T>) running().step();
    return value;
  }
  void store(T value, memory_order how = memory_order_seq_cst) const noexcept {
    if (!is_running()) {
      word_ = value;
      return;
    }
    running().step();
    const bool is_new = running().memory().newest(word_) != value;
    running().memory().store(word_, value, explored_order(how));
    if (is_new) running().changed();
  }
  T exchange(T value, memory_order how = memory_order_seq_cst) const noexcept {
    return change(how, [value](T) { return value; });
  }
  T fetch_add(T value, memory_order how = memory_order_seq_cst) const noexcept {
    return change(how, [value](T before) { return static_cast<T>(before + value); });
  }
  T fetch_sub(T value, memory_order how = memory_order_seq_cst) const noexcept {
    return change(how, [value](T before) { return static_cast<T>(before - value); });
  }
  T fetch_or(T value, memory_order how = memory_order_seq_cst) const noexcept {
    return change(how, [value](T before) { return static_cast<T>(before | value); });
  }
  T fetch_and(T value, memory_order how = memory_order_seq_cst) const noexcept {
    return change(how, [value](T before) { return static_cast<T>(before & value); });
  }
  bool compare_exchange_strong(T& expected, T desired, memory_order how,
                               memory_order otherwise) const noexcept {
    const T wanted = expected;
    if (!is_running()) {
      expected = word_;
      if (expected == wanted) word_ = desired;
    } else {
      running().step();
      expected = running().memory().compare_exchange(word_, wanted, desired, explored_order(how),
                                                     explored_order(otherwise));
      if (expected == wanted && desired != wanted) running().changed();
    }
    return expected == wanted;
  }
  bool compare_exchange_strong(T& expected, T desired,
                               memory_order how = memory_order_seq_cst) const noexcept {
    return compare_exchange_strong(expected, desired, how, explored_load_order(how));
  }
  template <class... Orders>
  bool compare_exchange_weak(T& expected, T desired, Orders... orders) const noexcept {
    return compare_exchange_strong(expected, desired, orders...);
  }

 private:
  static constexpr memory_order explored_load_order(memory_order how) noexcept {
    if (how == memory_order_acq_rel) return memory_order_acquire;
    return how == memory_order_release ? memory_order_relaxed : how;
  }
  static bool is_running() noexcept { return aprime::explored::Explorer::is_running(); }
  static aprime::explored::Explorer& running() noexcept { return aprime::explored::Explorer::running(); }
  template <class Change>
  T change(memory_order how, const Change& change) const noexcept {
    if (!is_running()) return exchange_here(change);
    running().step();
    const T before = running().memory().change(word_, explored_order(how), change);
    if (change(before) != before) running().changed();
    return before;
  }
  template <class Change>
  T exchange_here(const Change& change) const noexcept {
    const T before = word_;
    word_ = change(before);
    return before;
  }

  T& word_;
};

template <class T>
class explored_atomic {
 public:
  explored_atomic() = default;
  constexpr explored_atomic(T value) noexcept : value_(value) {}

  T load(memory_order how = memory_order_seq_cst) const noexcept { return ref().load(how); }
  void store(T value, memory_order how = memory_order_seq_cst) noexcept { ref().store(value, how); }
  T exchange(T value, memory_order how = memory_order_seq_cst) noexcept { return ref().exchange(value, how); }
  T fetch_add(T value, memory_order how = memory_order_seq_cst) noexcept {
    return ref().fetch_add(value, how);
  }
  T fetch_sub(T value, memory_order how = memory_order_seq_cst) noexcept {
    return ref().fetch_sub(value, how);
  }
  T fetch_or(T value, memory_order how = memory_order_seq_cst) noexcept { return ref().fetch_or(value, how); }
  T fetch_and(T value, memory_order how = memory_order_seq_cst) noexcept {
    return ref().fetch_and(value, how);
  }
  template <class... Orders>
  bool compare_exchange_strong(T& expected, T desired, Orders... orders) noexcept {
    return ref().compare_exchange_strong(expected, desired, orders...);
  }
  template <class... Orders>
  bool compare_exchange_weak(T& expected, T desired, Orders... orders) noexcept {
    return ref().compare_exchange_strong(expected, desired, orders...);
  }

 private:
  explored_atomic_ref<T> ref() const noexcept { return explored_atomic_ref<T>(value_); }

  mutable T value_;
};

class explored_mutex {
 public:
  constexpr explored_mutex() = default;
  void lock() noexcept {
    if (aprime::explored::Explorer::is_running())
      aprime::explored::Explorer::running().wait_until([this] { return !is_locked_; });
    is_locked_ = true;
    if (aprime::explored::Explorer::is_running()) aprime::explored::Explorer::running().memory().take(this);
  }
  void unlock() noexcept {
    if (aprime::explored::Explorer::is_running()) aprime::explored::Explorer::running().memory().give(this);
    is_locked_ = false;
    aprime::explored::Explorer::changed();
  }

 private:
  bool is_locked_ = false;
};

class explored_condition_variable_any {
 public:
  template <class Lock>
  void wait(Lock& lock) noexcept {
    lock.unlock();
    aprime::explored::Explorer::running().block_on(this);
    lock.lock();
  }
  void notify_all() noexcept {
    if (!aprime::explored::Explorer::is_running()) return;
    aprime::explored::Explorer::running().step();
    aprime::explored::Explorer::running().wake_all(this);
  }
};

/// To be made where a run is set up.
class explored_thread {
 public:
  explored_thread() = default;
  explicit explored_thread(std::function<void()> body) : is_over_(std::make_shared<bool>(false)) {
    aprime::explored::Explorer::being_set_up().add_thread([run = std::move(body), over = is_over_] {
      run();
      aprime::explored::Explorer::running().memory().give(over.get());
      *over = true;
    });
  }
  bool joinable() const noexcept { return is_over_ != nullptr; }
  void join() noexcept {
    // After a run that failed it is not over.
    if (aprime::explored::Explorer::is_running()) {
      aprime::explored::Explorer::running().wait_until([this] { return *is_over_; });
      aprime::explored::Explorer::running().memory().take(is_over_.get());
    }
    is_over_ = nullptr;
  }
  static unsigned hardware_concurrency() noexcept { return 2; }

 private:
  std::shared_ptr<bool> is_over_;
};

}  // namespace std

inline int explored_yield() noexcept {
  aprime::explored::Explorer::running().sleep();
  return 0;
}
inline int explored_nanosleep(const timespec*, timespec*) noexcept { return explored_yield(); }

#define atomic explored_atomic
#define atomic_ref explored_atomic_ref
#define condition_variable_any explored_condition_variable_any
#define mutex explored_mutex
#define nanosleep explored_nanosleep
#define sched_yield explored_yield
#define thread explored_thread
#define __builtin_ia32_pause explored_yield

namespace aprime::device::sanitizer {

/// As the one of this name, which was declared before.
inline constexpr bool thread = false;

}  // namespace aprime::device::sanitizer
