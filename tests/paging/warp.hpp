#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "aprime/grid.hpp"
#include "aprime/kernel.hpp"

namespace aprime::explored {

/// Lanes of a warp, each of them an explored thread: they do one step after the other in any order, and meet
/// where device code says so. Only a sync orders what one does before what another does.
///
/// A thread that has entered none is a warp of one lane.
class Warp {
 public:
  explicit Warp(unsigned lanes) : lanes_(lanes), live_(~0U >> (warp_lanes - lanes)) {}
  Warp(const Warp&) = delete;
  Warp& operator=(const Warp&) = delete;

  /// What the running thread is from now on, until it leaves.
  void enter(unsigned lane) noexcept;
  static void leave() noexcept;
  /// Before a run.
  static void forget_all() noexcept { seats_.clear(); }

  /// Both: see aprime/detail/emulated_builtins.hpp.
  static std::uint64_t meet(detail::WarpOp op, unsigned mask, std::uint64_t value, unsigned operand) noexcept;
  /// Those that have come to the same place when the first of them goes on.
  static unsigned converged(const void* place) noexcept;

 private:
  struct Lane {
    bool waits = false;
    detail::WarpOp op{};
    unsigned mask = 0;
    std::uint64_t value = 0;
    /// Of a shuffle.
    unsigned source = 0;
    std::uint64_t result = 0;
    /// Where it has come to, while it is to be told who else has.
    const void* place = nullptr;
    unsigned converged_with = 0;
  };
  using Seat = std::pair<Warp*, unsigned>;

  static Seat& own_seat() noexcept;
  std::uint64_t meet_as(unsigned own) noexcept;
  /// Answers those that `own` waits for, if all of them have come.
  void answer(unsigned own) noexcept;

  /// By the number of the explored thread.
  static inline thread_local std::vector<Seat> seats_;

  std::vector<Lane> lanes_;
  unsigned live_;
  /// By which those know of each other that have met, one after the other.
  std::array<char, 64> meetings_{};
  std::size_t next_meeting_ = 0;
};

}  // namespace aprime::explored
