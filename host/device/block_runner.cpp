#include "host/device/block_runner.hpp"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstdio>
#include <exception>
#include <thread>
#include <utility>

// Blocks, threads and the block barrier. Warps are in block_runner_warp.cpp.

namespace aprime::device {

thread_local constinit BlockRunner* current_runner = nullptr;

namespace {

/// Shorter sleeps give the processor away and come back at once: the kernel's timers are not that fine.
constexpr unsigned real_sleep_min_ns = 5000;

/// For counters with one writer; a read-modify-write would lock the bus for nothing.
void add(std::atomic<std::uint64_t>& counter) noexcept {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace

BlockRunner::BlockRunner(std::size_t stack_bytes)
    : pool_(fibers_, stack_bytes, &BlockRunner::fiber_main, this),
      threads_(std::make_unique<Thread[]>(threads_per_block_max)) {}

ExecutorCounters BlockRunner::counters() const noexcept {
  constexpr auto relaxed = std::memory_order_relaxed;
  return ExecutorCounters{blocks_run_.load(relaxed), promoted_.load(relaxed), fibers_created_.load(relaxed)};
}

void BlockRunner::run_block(Launch& launch, std::uint64_t block) noexcept {
  const sanitizer::Overlook overlook;
  launch_ = &launch;
  begin_block(block);
  if (one_fiber_per_thread && !pool_.reserve(thread_count_)) {
    // Fibers are made on the root, since making one orders it after its maker.
    record(LaunchOutcome::out_of_memory, {}, "no memory for the stacks of a block's threads");
    return;
  }
  if constexpr (sanitizer::thread) {
    block_end_.store(0, std::memory_order_release);
    block_start_.store(0, std::memory_order_release);
  }
  Fiber* const first = rest_of_loop();
  if (first != &fibers_.root()) fibers_.switch_to(*first);
  if constexpr (sanitizer::thread) static_cast<void>(block_end_.load(std::memory_order_acquire));
  if (abandoned_ || one_fiber_per_thread) pool_.take_back_all(abandoned_);
  add(blocks_run_);
  fibers_created_.store(pool_.count(), std::memory_order_relaxed);
}

void BlockRunner::begin_block(std::uint64_t block) noexcept {
  const Dim3 blocks = launch_->grid.blocks;
  const std::uint64_t row = block / blocks.x;
  detail::gridDim = blocks;
  detail::blockDim = launch_->grid.threads;
  detail::blockIdx = Index3{static_cast<unsigned>(block % blocks.x), static_cast<unsigned>(row % blocks.y),
                            static_cast<unsigned>(row / blocks.y)};
  thread_count_ = static_cast<unsigned>(launch_->grid.threads.count());
  for (unsigned first = 0; first < thread_count_; first += warp_lanes) {
    const unsigned lanes = std::min(thread_count_ - first, warp_lanes);
    warp_of(first) = Warp{~0U >> (warp_lanes - lanes), 0, 0, 0};
  }
  next_index_ = 0;
  ended_ = 0;
  waiting_ = 0;
  barrier_arrived_ = 0;
  barrier_yes_ = 0;
  barrier_waiters_.clear();
  ready_.clear();
  loop_ = nullptr;
  sleeps_in_a_row_ = 0;
  abandoned_ = false;
}

void BlockRunner::fiber_main(void* self) noexcept {
  BlockRunner& runner = *static_cast<BlockRunner*>(self);
  for (;;) {
    Fiber& fiber = runner.fibers_.current();
    runner.run_threads(fiber.cursor);
    if constexpr (!one_fiber_per_thread) runner.pool_.give(fiber);
    Fiber& next = runner.pick_next();
    if (&next != &fiber) runner.fibers_.switch_to(next);
  }
}

void BlockRunner::run_threads(detail::ThreadCursor& cursor) noexcept {
  std::array<char, 256> what{};
  bool threw = false;
  if constexpr (sanitizer::thread) static_cast<void>(block_start_.load(std::memory_order_acquire));
  sanitizer::Overlook::end();
  try {
    launch_->body.run(launch_->body.closure, cursor);
  } catch (const std::exception& exception) {
    threw = true;
    std::snprintf(what.data(), what.size(), "exception: %s", exception.what());
  } catch (...) {
    threw = true;
    std::snprintf(what.data(), what.size(), "exception of a type not derived from std::exception");
  }
  sanitizer::Overlook::begin();
  // Outside the handlers, which have to end for the exception object to be freed.
  if (threw) {
    record(LaunchOutcome::exception, {}, what.data());
    abandon_block();
  }
}

bool BlockRunner::next_thread(detail::ThreadCursor& cursor) noexcept {
  const sanitizer::Overlook overlook;
  Fiber& self = fibers_.current();
  if (cursor.in_thread) {
    cursor.in_thread = false;
    if constexpr (sanitizer::thread) block_end_.fetch_add(1, std::memory_order_release);
    account(cursor, cursor.index + 1);
    if (self.dedicated) return false;
    if constexpr (one_fiber_per_thread) {
      loop_ = nullptr;
      return false;
    }
    // Once only: a ready thread that sleeps comes straight back here.
    if (!ready_.empty()) fibers_.switch_to(ready_.pop());
  }
  if (next_index_ == thread_count_) {
    loop_ = nullptr;
    return false;
  }
  start_thread(cursor);
  return true;
}

void BlockRunner::start_thread(detail::ThreadCursor& cursor) noexcept {
  const Dim3 extent = detail::blockDim;
  const unsigned index = next_index_++;
  cursor.index = index;
  cursor.first = index;
  cursor.in_thread = true;
  // While nobody waits, nobody is interested in how far the loop has come.
  cursor.fast_end = waiting_ == 0 && ready_.empty() && !one_fiber_per_thread ? thread_count_ : 0;
  if (index < extent.x) {
    detail::threadIdx = Index3{index, 0, 0};
  } else {
    const unsigned row = index / extent.x;
    detail::threadIdx = Index3{index % extent.x, row % extent.y, row / extent.y};
  }
}

/// Learns of what the cursor did on its fast path: its threads before `end` have ended.
void BlockRunner::account(detail::ThreadCursor& cursor, unsigned end) noexcept {
  next_index_ = std::max(next_index_, cursor.index + 1);
  if (cursor.first < end) retire(std::exchange(cursor.first, end), end);
}

void BlockRunner::retire(unsigned first, unsigned end) noexcept {
  ended_ += end - first;
  sleeps_in_a_row_ = 0;
  while (first < end) {
    const unsigned warp_end = std::min(end, (first / warp_lanes + 1) * warp_lanes);
    const unsigned lanes = (~0U >> (warp_lanes - (warp_end - first))) << (first % warp_lanes);
    warp_of(first).live &= ~lanes;
    if (waiting_ != 0) recheck(first / warp_lanes);
    first = warp_end;
  }
  if (barrier_arrived_ != 0 && barrier_arrived_ + ended_ == thread_count_) release_barrier();
}

/// The calling thread, after bringing the books up to date.
unsigned BlockRunner::arriving_thread() noexcept {
  detail::ThreadCursor& cursor = fibers_.current().cursor;
  account(cursor, cursor.index);
  return cursor.index;
}

detail::BarrierVotes BlockRunner::block_barrier(bool vote) noexcept {
  const sanitizer::Overlook overlook;
  const unsigned index = arriving_thread();
  ++barrier_arrived_;
  barrier_yes_ += vote ? 1 : 0;
  if (barrier_arrived_ + ended_ == thread_count_) {
    release_barrier();
  } else {
    barrier_waiters_.push(fibers_.current());
    wait(index, Wait::block_barrier);
  }
  // Still this barrier's: the next one completes only after every thread here has gone on to it, or ended.
  return barrier_votes_;
}

/// All live threads have arrived, so nobody waits for anything else.
void BlockRunner::release_barrier() noexcept {
  if constexpr (sanitizer::thread) {
    order_after_each_other([this](const auto& visit) {
      for (Fiber* fiber = barrier_waiters_.front(); fiber != nullptr; fiber = fiber->next) visit(*fiber);
    });
  }
  barrier_votes_ = detail::BarrierVotes{barrier_yes_, barrier_arrived_};
  barrier_arrived_ = 0;
  barrier_yes_ = 0;
  waiting_ = 0;
  for (unsigned first = 0; first < thread_count_; first += warp_lanes) warp_of(first).parked = 0;
  ready_.splice(barrier_waiters_);
}

void BlockRunner::dedicate(Fiber& self) noexcept {
  if (self.dedicated) return;
  self.dedicated = true;
  self.cursor.fast_end = 0;
  loop_ = nullptr;
  add(promoted_);
}

void BlockRunner::wake(unsigned index) noexcept {
  --waiting_;
  warp_of(index).parked &= ~(1U << (index % warp_lanes));
  ready_.push(*threads_[index].fiber);
}

/// A fiber for the threads that have not started; the root when there is no memory for it; nullptr when all
/// have.
Fiber* BlockRunner::rest_of_loop() noexcept {
  if (loop_ != nullptr) return loop_;
  if (next_index_ == thread_count_) return nullptr;
  loop_ = pool_.take();
  if (loop_ != nullptr) return loop_;
  record(LaunchOutcome::out_of_memory, {}, "no memory for the stacks of a block's threads");
  abandoned_ = true;
  return &fibers_.root();
}

/// Where to go on when the current fiber cannot.
Fiber& BlockRunner::pick_next() noexcept {
  if (!ready_.empty()) return ready_.pop();
  if (Fiber* const fiber = rest_of_loop(); fiber != nullptr) return *fiber;
  if (waiting_ != 0) {
    report_deadlock();
    abandoned_ = true;
  }
  return fibers_.root();
}

void BlockRunner::sleep(unsigned nanoseconds) noexcept {
  const sanitizer::Overlook overlook;
  const unsigned index = arriving_thread();
  Fiber& self = fibers_.current();
  if (launch_->stopping.load(std::memory_order_relaxed)) abandon_block();
  Warp& warp = warp_of(index);
  const unsigned lane = 1U << (index % warp_lanes);
  warp.parked |= lane;
  if (warp.converging != 0) release_converged(index / warp_lanes);
  const bool others = !ready_.empty() || next_index_ != thread_count_ || (loop_ != nullptr && loop_ != &self);
  if (!others || ++sleeps_in_a_row_ > thread_count_) {
    // What everybody here waits for has to come from another thread of the machine.
    sleeps_in_a_row_ = 0;
    if (nanoseconds < real_sleep_min_ns) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::nanoseconds(nanoseconds));
    }
  }
  if (others) {
    dedicate(self);
    ready_.push(self);
    Fiber* const rest = rest_of_loop();
    Fiber& next = rest != nullptr ? *rest : ready_.pop();
    if (&next != &self) fibers_.switch_to(next);
  }
  warp.parked &= ~lane;
}

}  // namespace aprime::device

// What kernels call. Flattened, so that one return leads from the switch back into the kernel.

namespace aprime::detail {

bool next_thread(ThreadCursor& cursor) noexcept { return device::current_runner->next_thread(cursor); }

[[gnu::flatten]] BarrierVotes block_barrier(bool vote) noexcept {
  assert(device::on_device_thread());
  return device::current_runner->block_barrier(vote);
}

void sleep_thread(unsigned nanoseconds) noexcept {
  assert(device::on_device_thread());
  device::current_runner->sleep(nanoseconds);
}

void give_way() noexcept {
  if (device::on_device_thread()) device::current_runner->sleep(0);
}

void fence() noexcept {
#ifdef APRIME_TSAN
  // ThreadSanitizer does not follow fences. Passing through one word orders at least as much.
  static std::atomic<unsigned> gate{0};
  gate.fetch_add(1, std::memory_order_acq_rel);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

}  // namespace aprime::detail
