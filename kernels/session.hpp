#pragma once

#include <algorithm>
#include <cstdint>
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

/// Thrown by `Progress::advance` to stop a workload between two launches.
struct Interrupted {};

/// Who watches a workload. Called on the thread that runs it.
class Progress {
 public:
  virtual ~Progress() = default;
  /// A new pass over `total` bytes begins.
  virtual void begin(const std::string& phase, ByteCount total) = 0;
  /// `done` more bytes are through. \throws Interrupted
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

  /// The same as one phase.
  template <class Step>
  void stream(const std::string& phase, ByteCount total, ByteCount chunk, Step step) const {
    progress_.begin(phase, total);
    for_each_range(total, chunk, [&](ByteRange range) {
      step(range);
      progress_.advance(range.size);
    });
  }

 private:
  Runtime& runtime_;
  ByteCount granule_;
  ByteCount device_memory_;
  Progress& progress_;
};

}  // namespace aprime::kernels
