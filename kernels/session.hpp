#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <stdexcept>
#include <string>
#include <utility>

#include "aprime/runtime.hpp"
#include "aprime/units.hpp"

namespace aprime::kernels {

/// The input is not what the workload needs. `what()` names the thing and says what to do.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An argument other than a file can never be right, whatever the files are. `what()` names it.
class UsageError : public InputError {
 public:
  using InputError::InputError;
};

/// Thrown by `Progress::advance` to stop a workload between two pieces.
struct Interrupted {};

/// Who watches a workload. Called on the thread that runs it.
class Progress {
 public:
  virtual ~Progress() = default;
  /// A new pass over `total` bytes begins.
  virtual void begin(const std::string& phase, ByteCount total) = 0;
  /// `done` more bytes are through: the launches that work on them have ended. \throws Interrupted
  virtual void advance(ByteCount done) = 0;
};

/// The device a workload runs on (the first of its runtime), how much of its memory one launch may lease, and
/// who watches.
class Session {
 public:
  Session(Runtime& runtime, ByteCount granule, ByteCount device_memory, Progress& progress)
      : runtime_(runtime), granule_(granule), device_memory_(device_memory), progress_(progress) {}

  Runtime& runtime() const noexcept { return runtime_; }
  Progress& progress() const noexcept { return progress_; }
  ByteCount granule() const noexcept { return granule_; }

  /// Largest size of each of `leases` ranges that one launch may lease anywhere in a mapping, besides `extra`
  /// bytes from the start of another one; a multiple of the granule. All of them take at most half of the
  /// device memory, so that the next launch's bytes have room to arrive while a launch runs. \throws
  /// InputError that says how much device memory it takes
  ByteCount lease_bytes(unsigned leases, ByteCount extra = {}) const;

  /// Launches without waiting, so that the bytes of this launch can arrive while earlier ones run. The end of
  /// each is awaited when some more were queued, or by `finish`. Until then the host must not ask for what
  /// launches store. \throws Error if an earlier one did not end well; what `Progress::advance` throws; then
  /// all have ended
  template <class Kernel, class... Args>
  void queue(const char* name, const Grid& grid, Kernel kernel, const Args&... args) {
    add(runtime_.launch(grid, LaunchOptions{.device = 0, .name = name}, std::move(kernel), args...));
  }
  template <class Task, class... Args>
  void queue_task(const char* name, Task task, const Args&... args) {
    add(runtime_.launch_task(LaunchOptions{.device = 0, .name = name}, std::move(task), args...));
  }
  /// When what is queued now has ended, `done` more bytes are through.
  void advance_then(ByteCount done);
  /// Waits for all that is queued. \throws likewise
  void finish();

  /// Launches and waits. \throws Error if it did not end well
  template <class Kernel, class... Args>
  void run(const char* name, const Grid& grid, Kernel kernel, const Args&... args) const {
    runtime_.launch(grid, LaunchOptions{.device = 0, .name = name}, std::move(kernel), args...).wait();
  }
  template <class Task, class... Args>
  void run_task(const char* name, Task task, const Args&... args) const {
    runtime_.launch_task(LaunchOptions{.device = 0, .name = name}, std::move(task), args...).wait();
  }

  /// Calls `step(range)` for successive ranges of at most `chunk` bytes that cover [0, total).
  template <class Step>
  static void for_each_range(ByteCount total, ByteCount chunk, Step step) {
    for (std::uint64_t at = 0; at < total.value; at += chunk.value) {
      step(ByteRange{ByteOffset{at}, ByteCount{std::min(total.value - at, chunk.value)}});
    }
  }

  /// The same as one phase; the step may queue. Returns when everything has ended.
  template <class Step>
  void stream(const std::string& phase, ByteCount total, ByteCount chunk, Step step) {
    progress_.begin(phase, total);
    for_each_range(total, chunk, [&](ByteRange range) {
      step(range);
      advance_then(range.size);
    });
    finish();
  }

 private:
  struct Queued {
    Completion launch;
    ByteCount done{};
    bool advances = false;
  };

  /// The device takes the leases of one launch ahead: that one and the one that runs, and as many again, so
  /// that it need not wait for us.
  static constexpr std::size_t kQueuedMax = 4;

  void add(Completion launch);
  void await_oldest();

  Runtime& runtime_;
  ByteCount granule_;
  ByteCount device_memory_;
  Progress& progress_;
  /// Oldest first.
  std::deque<Queued> queued_;
};

}  // namespace aprime::kernels
