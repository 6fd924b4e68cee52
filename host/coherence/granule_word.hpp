#pragma once

#include <cstdint>

#include "host/coherence/granule_state.hpp"

namespace aprime::coherence {

/// A granule's whole record in the directory, in one word that is changed by compare-and-swap only.
///
///     63        40 39     26 25       10 9     5   4     3    2    0
///     [  epoch   ] [  pins ] [ readers ] [owner] [wait][busy] [kind]
///
/// - busy: a transaction holds the granule; only that transaction changes the state
/// - wait: some thread sleeps until the word changes
/// - pins: leases that rely on the rights as they are; while it is not zero no right is taken away
/// - epoch: grows by one at the end of each transaction; lets a reader see that something happened in between
///
/// The word 0 is "cpu_exclusive, free, never touched".
class GranuleWord {
 public:
  static constexpr unsigned kPinsMax = (1u << 14) - 1;

  constexpr GranuleWord() = default;
  constexpr explicit GranuleWord(std::uint64_t bits) noexcept : bits_(bits) {}

  constexpr std::uint64_t bits() const noexcept { return bits_; }
  constexpr bool busy() const noexcept { return (bits_ & kBusy) != 0; }
  constexpr bool has_waiters() const noexcept { return (bits_ & kWait) != 0; }
  constexpr unsigned pins() const noexcept { return static_cast<unsigned>(bits_ >> 26) & kPinsMax; }
  constexpr unsigned epoch() const noexcept { return static_cast<unsigned>(bits_ >> 40); }

  constexpr GranuleState state() const noexcept {
    return {static_cast<Kind>(bits_ & 7), AgentId::from_index(static_cast<unsigned>(bits_ >> 5) & 15u),
            AgentSet{static_cast<std::uint16_t>(bits_ >> 10)}};
  }

  constexpr GranuleWord with_state(const GranuleState& s) const noexcept {
    assert(s.is_legal());
    const std::uint64_t packed = static_cast<std::uint64_t>(s.kind) |
                                 static_cast<std::uint64_t>(s.owner.index()) << 5 |
                                 static_cast<std::uint64_t>(s.readers.bits) << 10;
    return GranuleWord{(bits_ & ~kStateMask) | packed};
  }
  constexpr GranuleWord with_busy() const noexcept { return GranuleWord{bits_ | kBusy}; }
  constexpr GranuleWord with_waiter() const noexcept { return GranuleWord{bits_ | kWait}; }
  constexpr GranuleWord without_waiter() const noexcept { return GranuleWord{bits_ & ~kWait}; }
  /// The end of a transaction: not busy, nobody waits any more, next epoch.
  constexpr GranuleWord released() const noexcept {
    return GranuleWord{(bits_ & ~(kBusy | kWait)) + (std::uint64_t{1} << 40)};
  }
  /// \pre pins() < kPinsMax
  constexpr GranuleWord with_pin() const noexcept { return GranuleWord{bits_ + kPin}; }
  /// \pre pins() > 0
  constexpr GranuleWord without_pin() const noexcept { return GranuleWord{bits_ - kPin}; }

 private:
  static constexpr std::uint64_t kBusy = 1u << 3;
  static constexpr std::uint64_t kWait = 1u << 4;
  static constexpr std::uint64_t kPin = std::uint64_t{1} << 26;
  static constexpr std::uint64_t kStateMask = 7u | std::uint64_t{31} << 5 | std::uint64_t{0xffff} << 10;

  std::uint64_t bits_ = 0;
};
static_assert(GranuleWord{}.state() == GranuleState::cpu_exclusive());

}  // namespace aprime::coherence
