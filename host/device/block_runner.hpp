#pragma once

#include "aprime/detail/emulated_builtins.hpp"
#include "aprime/detail/thread_cursor.hpp"
#include "aprime/grid.hpp"
#include "host/device/fiber.hpp"
#include "host/device/kernel_stop.hpp"
#include "host/device/launch.hpp"
#include "host/device/sanitizer_fibers.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace aprime::device {

/// Runs the blocks of one worker, one at a time. Constructed, used and destroyed on the worker's thread.
///
/// The threads of a block run one after another as a plain loop in one fiber. A thread that has to wait keeps
/// that fiber, and another takes the loop over. A woken thread goes before one that has not started, so a
/// kernel that only synchronises warps needs 32 stacks, not 1024; and one that sleeps lets the rest of the
/// loop go first, so every thread gets started.
class BlockRunner {
 public:
  explicit BlockRunner(std::size_t stack_bytes);
  BlockRunner(const BlockRunner&) = delete;
  BlockRunner& operator=(const BlockRunner&) = delete;

  /// Runs block number `block`, or as much of it as runs before the launch is stopped.
  void run_block(Launch& launch, std::uint64_t block) noexcept;

  [[nodiscard]] ExecutorCounters counters() const noexcept;

  // For the kernel thread that is running.

  [[nodiscard]] bool next_thread(detail::ThreadCursor& cursor) noexcept;
  [[nodiscard]] detail::BarrierVotes block_barrier(bool vote) noexcept;
  std::uint64_t warp_rendezvous(detail::WarpOp op, unsigned mask, std::uint64_t value, unsigned operand,
                                unsigned width) noexcept;
  [[nodiscard]] unsigned converged_lanes(const void* place) noexcept;
  void sleep(unsigned nanoseconds) noexcept;
  [[noreturn]] void stop(const KernelFault& fault) noexcept;
  [[nodiscard]] bool in_kernel() noexcept { return &fibers_.current() != &fibers_.root(); }
  /// Whether the address lies below the current stack, where the next frame of one that is used up goes.
  [[nodiscard]] bool is_below_stack(const void* address) noexcept;
  /// Where on the current stack there is room to end the kernel: at `pointer`, unless the stack is used up.
  [[nodiscard]] std::byte* room_to_stop(std::byte* pointer) noexcept;
  [[nodiscard]] const char* kernel_name() const noexcept { return launch_->body.name; }

  /// The fault that redirect_to_stop() left for its trampoline.
  KernelFault redirected;

 private:
  enum class Wait : std::uint8_t { none, block_barrier, warp, convergence };

  struct Thread {
    Fiber* fiber = nullptr;
    std::uint64_t value = 0;
    std::uint64_t result = 0;
    const void* place = nullptr;
    unsigned mask = 0;
    unsigned source_lane = 0;
    Wait wait = Wait::none;
    detail::WarpOp op = detail::WarpOp::sync;
  };

  /// Sets of lanes.
  struct Warp {
    /// Not ended.
    unsigned live = 0;
    /// In warp_rendezvous().
    unsigned waiting = 0;
    /// In converged_lanes().
    unsigned converging = 0;
    /// Waiting for anything, or asleep.
    unsigned parked = 0;
  };

  static void fiber_main(void* self) noexcept;
  void run_threads(detail::ThreadCursor& cursor) noexcept;
  void begin_block(std::uint64_t block) noexcept;

  // Threads of the loop.
  void start_thread(detail::ThreadCursor& cursor) noexcept;
  void account(detail::ThreadCursor& cursor, unsigned end) noexcept;
  void retire(unsigned first, unsigned end) noexcept;
  [[nodiscard]] unsigned arriving_thread() noexcept;

  // Waiting and waking.
  void dedicate(Fiber& self) noexcept;
  [[gnu::always_inline]] void wait(unsigned index, Wait reason) noexcept;
  void wake(unsigned index) noexcept;
  [[nodiscard]] Fiber* rest_of_loop() noexcept;
  [[nodiscard]] Fiber& pick_next() noexcept;
  void release_barrier() noexcept;
  [[nodiscard]] unsigned assembled_lanes(unsigned index) noexcept;
  void complete(unsigned warp_first, unsigned lanes) noexcept;
  void release_converged(unsigned warp) noexcept;
  void recheck(unsigned warp) noexcept;
  template <typename ForEachOther>
  void order_after_each_other(const ForEachOther& for_each_other) noexcept;

  // Ending early.
  void record(LaunchOutcome outcome, const KernelFault& fault, const char* text) noexcept;
  [[noreturn]] void abandon_block() noexcept;
  [[noreturn]] void misuse(unsigned index, const char* text) noexcept;
  void report_deadlock() noexcept;

  [[nodiscard]] Warp& warp_of(unsigned index) noexcept { return warps_[index / warp_lanes]; }

  FiberSwitch fibers_;
  FiberPool pool_;
  std::unique_ptr<Thread[]> threads_;
  std::array<Warp, threads_per_block_max / warp_lanes> warps_;

  // The launch.
  Launch* launch_ = nullptr;
  unsigned thread_count_ = 0;

  // The block.
  /// First thread that has not started.
  unsigned next_index_ = 0;
  unsigned ended_ = 0;
  /// Threads that only another thread of the block can wake.
  unsigned waiting_ = 0;
  unsigned barrier_arrived_ = 0;
  unsigned barrier_yes_ = 0;
  detail::BarrierVotes barrier_votes_{};
  FiberList barrier_waiters_;
  FiberList ready_;
  /// The fiber that holds the rest of the loop, if any does.
  Fiber* loop_ = nullptr;
  unsigned sleeps_in_a_row_ = 0;
  bool abandoned_ = false;

  // For ThreadSanitizer: what orders the threads of a block after its start, and its end after them.
  std::atomic<unsigned> block_start_{0};
  std::atomic<unsigned> block_end_{0};
  std::atomic<unsigned> meeting_{0};

  // Read by other threads.
  std::atomic<std::uint64_t> blocks_run_{0};
  std::atomic<std::uint64_t> promoted_{0};
  std::atomic<std::uint64_t> fibers_created_{0};
};

/// Suspends the current thread until somebody wakes it.
inline void BlockRunner::wait(unsigned index, Wait reason) noexcept {
  Fiber& self = fibers_.current();
  Thread& thread = threads_[index];
  if (launch_->stopping.load(std::memory_order_relaxed)) abandon_block();
  dedicate(self);
  thread.wait = reason;
  thread.fiber = &self;
  ++waiting_;
  sleeps_in_a_row_ = 0;
  Warp& warp = warp_of(index);
  warp.parked |= 1U << (index % warp_lanes);
  if (warp.converging != 0) release_converged(index / warp_lanes);
  Fiber& next = pick_next();
  if (&next != &self) fibers_.switch_to(next);
  thread.wait = Wait::none;
}

/// Tells ThreadSanitizer that everything the current thread and the others did so far comes before everything
/// they do from now on. Exact, where releasing and acquiring on one address would also order what a quick
/// thread does next before what a slow one does, and hide its races.
template <typename ForEachOther>
void BlockRunner::order_after_each_other(const ForEachOther& for_each_other) noexcept {
  void* const self = fibers_.current().tsan_identity;
  meeting_.store(0, std::memory_order_release);
  for_each_other([this](const Fiber& fiber) {
    sanitizer::assume_identity(fiber.tsan_identity);
    meeting_.fetch_add(1, std::memory_order_acq_rel);
  });
  for_each_other([this](const Fiber& fiber) {
    sanitizer::assume_identity(fiber.tsan_identity);
    static_cast<void>(meeting_.load(std::memory_order_acquire));
  });
  sanitizer::assume_identity(self);
  static_cast<void>(meeting_.load(std::memory_order_acquire));
}

/// The runner of the calling worker; nullptr on other threads. In the initial-exec model, so that a signal
/// handler may read it on a thread that never has: the dynamic model might allocate.
[[gnu::tls_model("initial-exec")]] extern thread_local constinit BlockRunner* current_runner;

}  // namespace aprime::device
