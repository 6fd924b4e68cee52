#pragma once

#include "aprime/detail/thread_cursor.hpp"
#include "aprime/grid.hpp"
#include "host/device/kernel_stop.hpp"
#include "host/device/sanitizer_fibers.hpp"

#include <array>
#include <atomic>
#include <cstdint>

namespace aprime::device {

/// How a launch ended.
enum class LaunchOutcome : std::uint8_t {
  completed,
  /// stop_current_kernel() or redirect_to_stop().
  fault,
  /// An exception left the kernel.
  exception,
  /// Threads wait for one another, or a warp primitive was called against its rules.
  misuse,
  /// No memory for the stacks of the threads of a block.
  out_of_memory,
};

/// One grid in execution; shared by the workers that run its blocks.
struct Launch {
  detail::KernelBody body;
  Grid grid;
  std::uint64_t blocks = 0;
  alignas(64) std::atomic<std::uint64_t> next_block{0};
  /// Read at block boundaries and wherever a thread waits.
  alignas(64) std::atomic<bool> stopping{false};

  // Written by whoever first sets `claimed`; read when all workers are done. Fixed size: allocation may be
  // what the stopped kernel was interrupted in.
  std::atomic<bool> claimed{false};
  LaunchOutcome outcome = LaunchOutcome::completed;
  KernelFault fault;
  Index3 block;
  Index3 thread;
  std::array<char, 640> message{};
};

/// Monotonic; of one worker, or summed over an executor's.
struct ExecutorCounters {
  std::uint64_t blocks = 0;
  /// Threads that had to wait and so got a fiber of their own.
  std::uint64_t promoted_threads = 0;
  /// Fibers (stacks) that exist, idle or not.
  std::uint64_t fibers = 0;
};

/// Under ThreadSanitizer every thread of a block has a fiber of its own from the start: only what runs on
/// different fibers can race in its eyes.
inline constexpr bool one_fiber_per_thread = sanitizer::thread;

}  // namespace aprime::device
