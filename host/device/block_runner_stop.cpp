#include "host/device/block_runner.hpp"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <exception>
#include <span>

// How BlockRunner ends a block early, and what it says then. Nothing here allocates: a kernel may have been
// interrupted inside the allocator.

namespace aprime::device {

namespace {

/// Appends to a fixed buffer; what does not fit is cut off.
class Text {
 public:
  explicit Text(std::span<char> buffer) noexcept : buffer_(buffer) {}

  [[gnu::format(printf, 2, 3)]] void add(const char* format, ...) noexcept {
    va_list arguments;
    va_start(arguments, format);
    const int wanted = std::vsnprintf(buffer_.data() + used_, buffer_.size() - used_, format, arguments);
    va_end(arguments);
    if (wanted > 0) used_ = std::min(buffer_.size() - 1, used_ + static_cast<std::size_t>(wanted));
  }

 private:
  std::span<char> buffer_;
  std::size_t used_ = 0;
};

const char* name_of(detail::WarpOp op) noexcept {
  switch (op) {
    case detail::WarpOp::sync: return "__syncwarp";
    case detail::WarpOp::shfl: return "__shfl_sync";
    case detail::WarpOp::shfl_up: return "__shfl_up_sync";
    case detail::WarpOp::shfl_down: return "__shfl_down_sync";
    case detail::WarpOp::shfl_xor: return "__shfl_xor_sync";
    case detail::WarpOp::ballot: return "__ballot_sync";
    case detail::WarpOp::any: return "__any_sync";
    case detail::WarpOp::all: return "__all_sync";
    case detail::WarpOp::match_any: return "__match_any_sync";
  }
  return "a warp primitive";
}

/// Stack that stop() needs, with a sanitizer too.
constexpr std::size_t stop_bytes = std::size_t{24} << 10;

/// Groups of waiting threads that a report names.
constexpr unsigned reported_groups_max = 4;

}  // namespace

bool BlockRunner::is_below_stack(const void* address) noexcept {
  const std::byte* const bottom = fibers_.current().stack_bottom;
  const auto* const at = static_cast<const std::byte*>(address);
  return at < bottom && at >= bottom - FiberPool::guard_bytes;
}

std::byte* BlockRunner::room_to_stop(std::byte* pointer) noexcept {
  const Fiber& fiber = fibers_.current();
  const bool has_room = pointer >= fiber.stack_bottom + stop_bytes;
  if (has_room && pointer <= fiber.stack_top) return pointer;
  // From its beginning again: nobody returns to what lies there.
  sanitizer::clean_stack(fiber.stack_bottom, fiber.stack_bytes);
  return fiber.stack_top;
}

void BlockRunner::stop(const KernelFault& fault) noexcept {
  sanitizer::Overlook::begin();
  record(LaunchOutcome::fault, fault, "stopped by a fault");
  abandon_block();
}

/// Only the first of a launch counts.
void BlockRunner::record(LaunchOutcome outcome, const KernelFault& fault, const char* text) noexcept {
  if (!launch_->claimed.exchange(true)) {
    launch_->outcome = outcome;
    launch_->fault = fault;
    launch_->block = detail::blockIdx;
    launch_->thread = detail::threadIdx;
    Text message(launch_->message);
    message.add("%s", text);
  }
  launch_->stopping.store(true, std::memory_order_relaxed);
}

void BlockRunner::abandon_block() noexcept {
  abandoned_ = true;
  fibers_.switch_to(fibers_.root());
  std::terminate();  // An abandoned fiber is never continued.
}

void BlockRunner::misuse(unsigned index, const char* text) noexcept {
  std::array<char, 256> buffer{};
  Text message(buffer);
  message.add("%s called %s (mask 0x%08x, lane %u)", name_of(threads_[index].op), text, threads_[index].mask,
              index % warp_lanes);
  record(LaunchOutcome::misuse, {}, buffer.data());
  abandon_block();
}

/// No thread of the block can go on, and not all have ended: says who waits for what.
void BlockRunner::report_deadlock() noexcept {
  std::array<char, sizeof(Launch::message)> buffer{};
  Text message(buffer);
  message.add("the threads of the block wait for one another:");
  const auto same_group = [this](unsigned one, unsigned other) {
    const Thread& a = threads_[one];
    const Thread& b = threads_[other];
    if (a.wait != b.wait || a.wait == Wait::block_barrier) return a.wait == b.wait;
    return one / warp_lanes == other / warp_lanes && a.op == b.op && a.mask == b.mask;
  };
  const auto lives = [this](unsigned index) {
    return (warp_of(index).live >> (index % warp_lanes) & 1U) != 0;
  };
  unsigned groups = 0;
  for (unsigned index = 0; index < thread_count_ && groups <= reported_groups_max; ++index) {
    if (!lives(index)) continue;
    bool reported = false;
    for (unsigned other = 0; other < index && !reported; ++other)
      reported = lives(other) && same_group(other, index);
    if (reported) continue;
    if (++groups > reported_groups_max) {
      message.add("; and others");
      break;
    }
    unsigned size = 0;
    for (unsigned other = index; other < thread_count_; ++other) {
      size += lives(other) && same_group(index, other) ? 1U : 0U;
    }
    const char* const separator = groups == 1 ? "" : ";";
    if (threads_[index].wait == Wait::block_barrier) {
      message.add(
          "%s %u at a block barrier (__syncthreads), the first of them thread %u of the block, for %u that "
          "neither arrived nor ended",
          separator, size, index, thread_count_ - barrier_arrived_ - ended_);
    } else {
      const Warp& warp = warp_of(index);
      unsigned missing = threads_[index].mask & warp.live;
      for (unsigned lane = 0; lane < warp_lanes; ++lane) {
        const unsigned other = index - index % warp_lanes + lane;
        if ((missing >> lane & 1U) != 0 && same_group(index, other)) missing &= ~(1U << lane);
      }
      message.add(
          "%s %u in %s (mask 0x%08x), the first of them thread %u of the block, for lanes 0x%08x of warp %u",
          separator, size, name_of(threads_[index].op), threads_[index].mask, index, missing,
          index / warp_lanes);
    }
  }
  record(LaunchOutcome::misuse, {}, buffer.data());
}

}  // namespace aprime::device
