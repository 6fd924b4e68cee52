#include "tests/paging/warp.hpp"

#include "tests/explorer/explorer.hpp"
#include "tests/paging/world.hpp"

namespace aprime::explored {

using detail::WarpOp;

namespace {

template <class Fn>
void for_each_lane(unsigned lanes, const Fn& fn) {
  for (; lanes != 0; lanes &= lanes - 1) fn(static_cast<unsigned>(__builtin_ctz(lanes)));
}

}  // namespace

Warp::Seat& Warp::own_seat() noexcept {
  const std::size_t number = Explorer::running().number_of_running();
  if (seats_.size() <= number) seats_.resize(number + 1);
  return seats_[number];
}

void Warp::enter(unsigned lane) noexcept {
  own_seat() = {this, lane};
  detail::threadIdx = {lane, 0, 0};
}

void Warp::leave() noexcept {
  Seat& seat = own_seat();
  if (seat.first == nullptr) return;
  seat.first->live_ &= ~(1U << seat.second);
  seat = {};
  Explorer::changed();
}

std::uint64_t Warp::meet(WarpOp op, unsigned mask, std::uint64_t value, unsigned operand) noexcept {
  const auto [warp, own] = own_seat();
  Warp alone(1);
  Warp& met = warp != nullptr ? *warp : alone;
  if ((mask >> own & 1) == 0) Explorer::running().fail("a lane meets others that do not expect it");
  if (op == WarpOp::sync && !World::current()->lanes_meet()) return value;
  Lane& lane = met.lanes_[own];
  lane.op = op;
  lane.mask = mask;
  lane.value = value;
  lane.source = operand;
  lane.waits = true;
  return met.meet_as(own);
}

std::uint64_t Warp::meet_as(unsigned own) noexcept {
  Explorer& explorer = Explorer::running();
  Lane& lane = lanes_[own];
  const char* const meeting = &meetings_[next_meeting_];
  if (lane.op == WarpOp::sync) explorer.memory().give(meeting);
  // A lane that ends is not waited for any longer.
  for (answer(own); lane.waits; answer(own)) explorer.sleep(false);
  if (lane.op == WarpOp::sync) explorer.memory().take(meeting);
  return lane.result;
}

void Warp::answer(unsigned own) noexcept {
  const Lane& asks = lanes_[own];
  if (!asks.waits) return;
  const unsigned met = asks.mask & live_;
  bool all_are_here = true;
  for_each_lane(met, [&](unsigned l) {
    const Lane& other = lanes_[l];
    all_are_here &= other.waits && other.op == asks.op && other.mask == asks.mask;
  });
  if (!all_are_here) return;
  unsigned votes = 0;
  for_each_lane(met, [&](unsigned l) { votes |= lanes_[l].value != 0 ? 1U << l : 0; });
  for_each_lane(met, [&](unsigned l) {
    Lane& lane = lanes_[l];
    unsigned same = 0;
    for_each_lane(met, [&](unsigned k) { same |= lanes_[k].value == lane.value ? 1U << k : 0; });
    switch (lane.op) {
      case WarpOp::ballot: lane.result = votes; break;
      case WarpOp::any: lane.result = votes != 0 ? 1 : 0; break;
      case WarpOp::all: lane.result = votes == met ? 1 : 0; break;
      case WarpOp::match_any: lane.result = same; break;
      case WarpOp::shfl: lane.result = lanes_[(met >> lane.source & 1) != 0 ? lane.source : l].value; break;
      default: lane.result = lane.value; break;
    }
  });
  for_each_lane(met, [&](unsigned l) { lanes_[l].waits = false; });
  next_meeting_ = (next_meeting_ + 1) % meetings_.size();
  Explorer::changed();
}

unsigned Warp::converged(const void* place) noexcept {
  const auto [warp, own] = own_seat();
  if (warp == nullptr) return 1;
  Lane& lane = warp->lanes_[own];
  lane.place = place;
  Explorer& explorer = Explorer::running();
  // Others may come meanwhile, or not.
  if (!explorer.memory().is_weak() || explorer.random() % 2 == 0)
    explorer.sleep(false);
  else
    explorer.step();
  if (lane.place != nullptr) {
    unsigned all = 0;
    for_each_lane(warp->live_, [&](unsigned l) { all |= warp->lanes_[l].place == place ? 1U << l : 0; });
    for_each_lane(all, [&](unsigned l) {
      warp->lanes_[l].place = nullptr;
      warp->lanes_[l].converged_with = all;
    });
  }
  return lane.converged_with;
}

}  // namespace aprime::explored
