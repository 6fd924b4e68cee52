#include "host/device/block_runner.hpp"

#include <bit>
#include <cassert>

// The warp primitives of BlockRunner.

namespace aprime::device {

namespace {

using detail::WarpOp;

constexpr unsigned bit_of(unsigned lane) noexcept { return 1U << lane; }

/// Calls visit(lane) for each lane of the set, lowest first.
template <typename Visit>
void for_each_lane(unsigned lanes, const Visit& visit) {
  for (; lanes != 0; lanes &= lanes - 1) visit(static_cast<unsigned>(std::countr_zero(lanes)));
}

/// The lane that a shuffle reads; the caller's own where the PTX instruction `shfl.sync` says out of range.
unsigned shuffle_source(WarpOp op, unsigned lane, unsigned operand, unsigned width) noexcept {
  const unsigned segment_first = lane & ~(width - 1);
  const unsigned segment_last = segment_first + width - 1;
  switch (op) {
    case WarpOp::shfl: return segment_first + (operand & (width - 1));
    case WarpOp::shfl_up: return operand <= lane - segment_first ? lane - operand : lane;
    case WarpOp::shfl_down: return operand <= segment_last - lane ? lane + operand : lane;
    case WarpOp::shfl_xor: {
      // A lane may read the segments before its own, but not those after it.
      const unsigned source = lane ^ (operand & (warp_lanes - 1));
      return source <= segment_last ? source : lane;
    }
    default: return lane;
  }
}

}  // namespace

std::uint64_t BlockRunner::warp_rendezvous(WarpOp op, unsigned mask, std::uint64_t value, unsigned operand,
                                           unsigned width) noexcept {
  const sanitizer::Overlook overlook;
  const unsigned index = arriving_thread();
  const unsigned lane = index % warp_lanes;
  Thread& thread = threads_[index];
  thread.op = op;
  thread.mask = mask;
  thread.value = value;
  if ((mask & bit_of(lane)) == 0) misuse(index, "with a mask that does not name the calling lane");
  if (!std::has_single_bit(width) || width > warp_lanes)
    misuse(index, "with a width that is no power of two up to 32");
  thread.source_lane = shuffle_source(op, lane, operand, width);
  warp_of(index).waiting |= bit_of(lane);
  if (const unsigned lanes = assembled_lanes(index); lanes != 0) {
    complete(index - lane, lanes);
  } else {
    wait(index, Wait::warp);
  }
  return thread.result;
}

/// The lanes that take part in what `index` waits for, if all of them have arrived; otherwise 0.
unsigned BlockRunner::assembled_lanes(unsigned index) noexcept {
  const Warp& warp = warp_of(index);
  const Thread& thread = threads_[index];
  const unsigned lanes = thread.mask & warp.live;
  if ((lanes & ~warp.waiting) != 0) return 0;
  const Thread* const first = &threads_[index - index % warp_lanes];
  bool agreed = true;
  for_each_lane(lanes, [&](unsigned lane) {
    agreed = agreed && first[lane].op == thread.op && first[lane].mask == thread.mask;
  });
  return agreed ? lanes : 0;
}

/// Computes the results of all lanes at once, because the first to go on may come back with another value
/// before the last has looked at this one; then wakes those that sleep.
void BlockRunner::complete(unsigned warp_first, unsigned lanes) noexcept {
  Thread* const threads = &threads_[warp_first];
  const WarpOp op = threads[std::countr_zero(lanes)].op;
  switch (op) {
    case WarpOp::sync: break;
    case WarpOp::shfl:
    case WarpOp::shfl_up:
    case WarpOp::shfl_down:
    case WarpOp::shfl_xor:
      for_each_lane(lanes, [&](unsigned lane) {
        const unsigned source = threads[lane].source_lane;
        threads[lane].result = threads[(lanes & bit_of(source)) != 0 ? source : lane].value;
      });
      break;
    case WarpOp::ballot:
    case WarpOp::any:
    case WarpOp::all: {
      unsigned votes = 0;
      for_each_lane(lanes, [&](unsigned lane) { votes |= threads[lane].value != 0 ? bit_of(lane) : 0; });
      std::uint64_t result = votes;
      if (op == WarpOp::any) result = votes != 0 ? 1 : 0;
      if (op == WarpOp::all) result = votes == lanes ? 1 : 0;
      for_each_lane(lanes, [&](unsigned lane) { threads[lane].result = result; });
      break;
    }
    case WarpOp::match_any:
      for (unsigned rest = lanes; rest != 0;) {
        const std::uint64_t value = threads[std::countr_zero(rest)].value;
        unsigned equal = 0;
        for_each_lane(rest, [&](unsigned lane) { equal |= threads[lane].value == value ? bit_of(lane) : 0; });
        for_each_lane(equal, [&](unsigned lane) { threads[lane].result = equal; });
        rest &= ~equal;
      }
      break;
  }

  // The running thread is not asleep; when the end of a thread completes a rendezvous, it is not in it
  // either.
  const unsigned running = fibers_.current().cursor.index;
  const unsigned asleep =
      running / warp_lanes == warp_first / warp_lanes ? lanes & ~bit_of(running % warp_lanes) : lanes;
  if constexpr (sanitizer::thread) {
    if (op == WarpOp::sync) {
      order_after_each_other([&](const auto& visit) {
        for_each_lane(asleep, [&](unsigned lane) { visit(*threads[lane].fiber); });
      });
    }
  }
  warp_of(warp_first).waiting &= ~lanes;
  for_each_lane(asleep, [&](unsigned lane) { wake(warp_first + lane); });
}

unsigned BlockRunner::converged_lanes(const void* place) noexcept {
  const sanitizer::Overlook overlook;
  const unsigned index = arriving_thread();
  threads_[index].place = place;
  warp_of(index).converging |= bit_of(index % warp_lanes);
  wait(index, Wait::convergence);
  return static_cast<unsigned>(threads_[index].result);
}

/// Answers the lanes in converged_lanes(), once no lane of the warp runs that might still join them.
void BlockRunner::release_converged(unsigned warp_number) noexcept {
  Warp& warp = warps_[warp_number];
  if ((warp.live & ~warp.parked) != 0) return;
  const unsigned warp_first = warp_number * warp_lanes;
  Thread* const threads = &threads_[warp_first];
  while (warp.converging != 0) {
    const void* const place = threads[std::countr_zero(warp.converging)].place;
    unsigned together = 0;
    for_each_lane(warp.converging,
                  [&](unsigned lane) { together |= threads[lane].place == place ? bit_of(lane) : 0; });
    warp.converging &= ~together;
    for_each_lane(together, [&](unsigned lane) {
      threads[lane].result = together;
      wake(warp_first + lane);
    });
  }
}

/// After lanes of the warp have ended: what waited only for them can go on.
void BlockRunner::recheck(unsigned warp_number) noexcept {
  Warp& warp = warps_[warp_number];
  if (warp.converging != 0) release_converged(warp_number);
  const unsigned warp_first = warp_number * warp_lanes;
  for (unsigned rest = warp.waiting; rest != 0;) {
    const auto lane = static_cast<unsigned>(std::countr_zero(rest));
    const unsigned lanes = assembled_lanes(warp_first + lane);
    if (lanes != 0) complete(warp_first, lanes);
    rest &= ~(lanes | bit_of(lane));
  }
}

}  // namespace aprime::device

namespace aprime::detail {

[[gnu::flatten]] std::uint64_t warp_rendezvous(WarpOp op, unsigned mask, std::uint64_t value,
                                               unsigned operand, unsigned width) noexcept {
  assert(device::on_device_thread());
  return device::current_runner->warp_rendezvous(op, mask, value, operand, width);
}

// Not to be inlined: the address it returns to is the place in the kernel.
[[gnu::noinline]] unsigned converged_lanes() noexcept {
  assert(device::on_device_thread());
  return device::current_runner->converged_lanes(__builtin_return_address(0));
}

}  // namespace aprime::detail
