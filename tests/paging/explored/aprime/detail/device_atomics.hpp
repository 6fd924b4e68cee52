#pragma once

#include <cstdint>

#include "aprime/kernel.hpp"
#include "tests/explorer/explorer.hpp"

// In place of the header of this name, which the device code of the library includes: its atomic operations
// are steps of an Explorer, in the orders that they have on a GPU. Others may come behind an acquire, before
// what it has made visible is looked at.

namespace aprime::explored {

/// What an operation that makes `after` of `before` leaves in a word: something else where device code with a
/// mistake is tried. Defined beside the World.
std::uint64_t stored_by_device(const std::uint64_t* word, std::uint64_t before, std::uint64_t after) noexcept;
inline std::uint32_t stored_by_device(const std::uint32_t*, std::uint32_t, std::uint32_t after) noexcept {
  return after;
}
/// The order of an operation, and whether a fence is one. Likewise.
Order ordered_by_device(Order how) noexcept;
bool is_fenced_by_device() noexcept;

}  // namespace aprime::explored

namespace aprime::detail {

namespace order {
using explored::Order;
inline constexpr Order look = Order::relaxed;
inline constexpr Order relaxed = Order::relaxed;
inline constexpr Order acquire = Order::acquire;
inline constexpr Order release = Order::release;
inline constexpr Order acq_rel = Order::acq_rel;
}  // namespace order

template <class T>
class ExploredWord {
 public:
  explicit ExploredWord(T& word) noexcept : word_(word) {}

  T load(order::Order how) const noexcept {
    how = explored::ordered_by_device(how);
    explorer().step();
    const T value = explorer().memory().load(word_, how);
    step_behind(how);
    return value;
  }
  void store(T value, order::Order how) const noexcept {
    explorer().step();
    const T before = explorer().memory().newest(word_);
    const T stored = stored_of(before, value);
    explorer().memory().store(word_, stored, explored::ordered_by_device(how));
    if (stored != before) explorer().changed();
  }
  T fetch_add(T value, order::Order how) const noexcept {
    return change(how, [value](T before) { return before + value; });
  }
  T fetch_sub(T value, order::Order how) const noexcept {
    return change(how, [value](T before) { return before - value; });
  }
  T fetch_or(T value, order::Order how) const noexcept {
    return change(how, [value](T before) { return before | value; });
  }
  T fetch_and(T value, order::Order how) const noexcept {
    return change(how, [value](T before) { return before & value; });
  }
  bool compare_exchange_strong(T& expected, T desired, order::Order how,
                               order::Order otherwise) const noexcept {
    const T wanted = expected;
    how = explored::ordered_by_device(how);
    otherwise = explored::ordered_by_device(otherwise);
    explorer().step();
    const T stored = stored_of(wanted, desired);
    expected = explorer().memory().compare_exchange(word_, wanted, stored, how, otherwise);
    if (expected == wanted && stored != wanted) explorer().changed();
    step_behind(expected == wanted ? how : otherwise);
    return expected == wanted;
  }
  bool compare_exchange_weak(T& expected, T desired, order::Order how,
                             order::Order otherwise) const noexcept {
    return compare_exchange_strong(expected, desired, how, otherwise);
  }

 private:
  template <class Change>
  T change(order::Order how, const Change& change) const noexcept {
    how = explored::ordered_by_device(how);
    explorer().step();
    const auto make = [&](T before) { return stored_of(before, change(before)); };
    const T before = explorer().memory().change(word_, how, make);
    if (make(before) != before) explorer().changed();
    step_behind(how);
    return before;
  }
  T stored_of(T before, T after) const noexcept {
    return after != before ? explored::stored_by_device(&word_, before, after) : after;
  }
  static explored::Explorer& explorer() noexcept { return explored::Explorer::running(); }
  static void step_behind(order::Order how) noexcept {
    if (how == order::acquire) explorer().step();
  }

  T& word_;
};

template <class T>
using DeviceWord = ExploredWord<T>;
template <class T>
using SharedWord = ExploredWord<T>;

inline void acquire_seen() noexcept {
  if (explored::is_fenced_by_device()) explored::Explorer::running().memory().acquire_fence();
  explored::Explorer::running().step();
}
inline void acquire_seen_of_host() noexcept { acquire_seen(); }

}  // namespace aprime::detail
