#pragma once

#include "aprime/detail/thread_cursor.hpp"
#include "aprime/grid.hpp"
#include "host/device/kernel_stop.hpp"
#include "host/device/launch.hpp"
#include "host/device/sanitizer_fibers.hpp"

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace aprime::device {

/// What Executor::run() returns.
struct LaunchResult {
  LaunchOutcome outcome = LaunchOutcome::completed;
  /// With LaunchOutcome::fault.
  KernelFault fault;
  /// Unless completed: the kernel thread that was the first to end the launch.
  Index3 block;
  Index3 thread;
  /// Unless completed: one sentence that names kernel, block, thread and reason.
  std::string message;

  [[nodiscard]] bool completed() const noexcept { return outcome == LaunchOutcome::completed; }
};

/// The processors of the emulated device: runs CUDA-style grids on worker threads of its own.
///
/// Each worker runs one block at a time, from beginning to end; `__shared__` variables are its thread-locals.
/// Kernels that never synchronise run as plain loops over their threads. A thread of a block that waits lets
/// the block's other threads run, on fibers of the same worker. Blocks must not wait for blocks with a higher
/// number (as on a GPU), nor for more than `workers()` - 1 others.
///
/// The workers block all signals but those a fault raises, so that no handler of the program's runs on a
/// kernel's stack. Handlers of faults run on a stack of the worker's: a kernel that overflows its own hits a
/// guard (FiberPool), and there is room left to end it.
///
/// Thread safety: run() may be called from any thread that is not a kernel's; one grid runs at a time, other
/// callers wait. A child of fork() must not use an executor made before.
class Executor {
 public:
  /// What a kernel thread may have on its stack at least, in bytes: as much local memory as CUDA lets it
  /// have.
  static constexpr std::size_t kernel_stack_bytes = std::size_t{512} << 10;
  /// The whole of its stack: our own frames are on it, and a profiler's. Memory is used as it is touched.
  static constexpr std::size_t default_stack_bytes = kernel_stack_bytes + (std::size_t{64} << 10);

  /// `workers`: multiprocessors of the device; 0 for one per CPU.
  /// Throws std::system_error when threads cannot be created.
  explicit Executor(unsigned workers = 0, std::size_t stack_bytes = default_stack_bytes);
  /// Precondition: no run() is in progress.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// Runs all blocks of the grid and returns when they have ended. What the caller did before is visible to
  /// the kernel, and what the kernel did is visible to the caller. After a launch that was stopped, blocks
  /// that had not started never run, and the executor is as good as new. Throws std::invalid_argument when
  /// the grid cannot be launched (`Grid::problem()`), std::logic_error when called by a kernel,
  /// std::bad_alloc when there is no memory for the blocks' shared memory.
  [[nodiscard]] LaunchResult run(const detail::KernelBody& body, const Grid& grid);

  [[nodiscard]] unsigned workers() const noexcept { return static_cast<unsigned>(workers_.size()); }

  /// Sum over the workers since construction. Exact when no grid runs. Any thread.
  [[nodiscard]] ExecutorCounters counters() const;

 private:
  class Worker;

  const std::size_t stack_bytes_;
  /// Held while a grid runs.
  std::mutex launch_mutex_;
  /// Guards what the workers are to do and `busy_`.
  mutable std::mutex mutex_;
  std::condition_variable idle_;
  /// Workers that have not finished their part of the launch.
  unsigned busy_ = 0;
  /// Constant after construction. Last: they use the others until they end.
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace aprime::device
