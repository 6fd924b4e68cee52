#pragma once

#include <cstdint>

#include "aprime/kernel.hpp"
#include "tests/explorer/explorer.hpp"

// In place of the header of this name, which the device code of the library includes: its atomic operations
// are steps of an Explorer. What a thread does to other memory belongs to the step before it; so that others
// may come in between, there is one more step behind an acquire.

namespace aprime::explored {

/// What an operation that stores `after` in `word` leaves there: something else where device code with a
/// mistake is tried. Defined beside the World.
std::uint64_t stored_by_device(const std::uint64_t& word, std::uint64_t after) noexcept;
inline std::uint32_t stored_by_device(const std::uint32_t&, std::uint32_t after) noexcept { return after; }
/// Whether an operation on it is a step: not on one of the many entries that no granule has. Likewise.
bool is_step(const void* word) noexcept;

}  // namespace aprime::explored

namespace aprime::detail {

namespace order {
enum class Order : std::uint8_t { look, relaxed, acquire, release, acq_rel };
inline constexpr Order look = Order::look;
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
    return change(how, [](T before) { return before; });
  }
  void store(T value, order::Order how) const noexcept {
    change(how, [value](T) { return value; });
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
  bool compare_exchange_strong(T& expected, T desired, order::Order how, order::Order) const noexcept {
    const T wanted = expected;
    expected = change(how, [&](T before) { return before == wanted ? desired : before; });
    return expected == wanted;
  }
  bool compare_exchange_weak(T& expected, T desired, order::Order how, order::Order other) const noexcept {
    return compare_exchange_strong(expected, desired, how, other);
  }

 private:
  template <class Change>
  T change(order::Order how, const Change& change) const noexcept {
    explored::Explorer& explorer = explored::Explorer::running();
    const bool is_step = explored::is_step(&word_);
    if (is_step) explorer.step();
    const T before = word_;
    if (const T after = change(before); after != before) word_ = explored::stored_by_device(word_, after);
    if (word_ != before) explorer.changed();
    if (how == order::acquire && is_step) explorer.step();
    return before;
  }

  T& word_;
};

template <class T>
using DeviceWord = ExploredWord<T>;
template <class T>
using SharedWord = ExploredWord<T>;

inline void acquire_seen() noexcept {}
inline void acquire_seen_of_host() noexcept {}

}  // namespace aprime::detail
