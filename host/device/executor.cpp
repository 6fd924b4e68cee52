#include "host/device/executor.hpp"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <new>
#include <optional>
#include <stdexcept>
#include <thread>

#include "host/device/block_runner.hpp"
#include "host/os/alternate_stack.hpp"
#include "host/os/quiet_thread.hpp"

namespace aprime::device {

namespace {

/// Exactly as long as asked for, so that AddressSanitizer sees an access past the end.
class SharedMemory {
 public:
  SharedMemory() = default;
  ~SharedMemory() { release(); }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  void resize(std::size_t bytes) {
    if (bytes == bytes_) return;
    release();
    if (bytes != 0) base_ = ::operator new(bytes, alignment);
    bytes_ = bytes;
  }
  [[nodiscard]] void* base() const noexcept { return base_; }

 private:
  static constexpr std::align_val_t alignment{16};

  void release() noexcept {
    if (base_ != nullptr) ::operator delete(base_, alignment);
    base_ = nullptr;
    bytes_ = 0;
  }

  void* base_ = nullptr;
  std::size_t bytes_ = 0;
};

std::string describe(const Launch& launch) {
  std::array<char, 160> where{};
  std::snprintf(where.data(), where.size(), "block (%u,%u,%u), thread (%u,%u,%u): ", launch.block.x,
                launch.block.y, launch.block.z, launch.thread.x, launch.thread.y, launch.thread.z);
  return std::string("kernel ") + launch.body.name + ", " + where.data() + launch.message.data();
}

/// What serving a fault takes.
constexpr std::size_t handler_stack_bytes = (sanitizer::address ? std::size_t{128} : std::size_t{64}) << 10;

}  // namespace

class Executor::Worker {
 public:
  Worker(Executor& executor, unsigned number)
      : executor_(executor), thread_(os::start_quiet_thread([this, number] { main(number); })) {}

  ~Worker() {
    {
      const std::lock_guard lock(executor_.mutex_);
      leaving_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// The executor's mutex is held, and the worker is idle.
  void assign(Launch& launch) noexcept {
    launch_ = &launch;
    wake_.notify_one();
  }

  /// To be called once: waits until the worker is ready; throws what kept it from that.
  void await_ready() {
    std::unique_lock lock(executor_.mutex_);
    executor_.idle_.wait(lock, [this] { return runner_ != nullptr || failure_ != nullptr; });
    if (failure_ != nullptr) std::rethrow_exception(failure_);
  }

  /// The executor's mutex is held.
  void resize_shared_memory(std::size_t bytes) { shared_.resize(bytes); }
  [[nodiscard]] ExecutorCounters counters() const noexcept { return runner_->counters(); }

 private:
  void main(unsigned number) noexcept {
    std::array<char, 16> name{};
    std::snprintf(name.data(), name.size(), "aprime-dev-%u", number % 1000);
    ::pthread_setname_np(::pthread_self(), name.data());

    std::optional<os::AlternateStack> handler_stack;
    std::optional<BlockRunner> runner;
    std::unique_lock lock(executor_.mutex_);
    try {
      // ThreadSanitizer takes kernel threads for threads, which used one stack at a time without any order:
      // for it each serves its faults on its own, and ends the process when it has used that up.
      if constexpr (!sanitizer::thread) handler_stack.emplace(handler_stack_bytes);
      runner.emplace(executor_.stack_bytes_);
      runner_ = &*runner;
    } catch (const std::exception&) {
      failure_ = std::current_exception();
    }
    executor_.idle_.notify_all();
    if (failure_ != nullptr) return;

    current_runner = runner_;
    for (;;) {
      wake_.wait(lock, [this] { return leaving_ || launch_ != nullptr; });
      if (launch_ == nullptr) break;
      lock.unlock();
      run(*runner, *launch_);
      lock.lock();
      launch_ = nullptr;
      if (--executor_.busy_ == 0) executor_.idle_.notify_all();
    }
    current_runner = nullptr;
  }

  void run(BlockRunner& runner, Launch& launch) noexcept {
    detail::dynamic_shared_base = shared_.base();
    while (!launch.stopping.load(std::memory_order_relaxed)) {
      const std::uint64_t block = launch.next_block.fetch_add(1, std::memory_order_relaxed);
      if (block >= launch.blocks) break;
      runner.run_block(launch, block);
    }
  }

  Executor& executor_;
  // Guarded by the executor's mutex; the rest is the worker's own while a launch is assigned.
  std::condition_variable wake_;
  Launch* launch_ = nullptr;
  bool leaving_ = false;
  BlockRunner* runner_ = nullptr;
  std::exception_ptr failure_;
  SharedMemory shared_;
  /// Last: it uses the others as soon as it exists.
  std::thread thread_;
};

Executor::Executor(unsigned workers, std::size_t stack_bytes) : stack_bytes_(stack_bytes) {
  if (workers == 0) workers = std::max(1U, std::thread::hardware_concurrency());
  workers_.reserve(workers);
  for (unsigned number = 0; number < workers; ++number) {
    workers_.push_back(std::make_unique<Worker>(*this, number));
    workers_.back()->await_ready();
  }
}

Executor::~Executor() = default;

LaunchResult Executor::run(const detail::KernelBody& body, const Grid& grid) {
  if (const char* const problem = grid.problem(); problem != nullptr) throw std::invalid_argument(problem);
  if (on_device_thread()) throw std::logic_error("Executor::run: a kernel cannot launch another");

  Launch launch;
  launch.body = body;
  launch.grid = grid;
  launch.blocks = grid.blocks.count();
  const std::lock_guard one_grid(launch_mutex_);
  const std::uint64_t crew = std::min<std::uint64_t>(workers_.size(), launch.blocks);
  {
    std::unique_lock lock(mutex_);
    for (std::uint64_t i = 0; i < crew; ++i) workers_[i]->resize_shared_memory(grid.shared_bytes);
    busy_ = static_cast<unsigned>(crew);
    for (std::uint64_t i = 0; i < crew; ++i) workers_[i]->assign(launch);
    idle_.wait(lock, [this] { return busy_ == 0; });
  }

  LaunchResult result;
  result.outcome = launch.outcome;
  if (result.completed()) return result;
  result.fault = launch.fault;
  result.block = launch.block;
  result.thread = launch.thread;
  result.message = describe(launch);
  return result;
}

ExecutorCounters Executor::counters() const {
  ExecutorCounters sum;
  for (const auto& worker : workers_) {
    const ExecutorCounters counters = worker->counters();
    sum.blocks += counters.blocks;
    sum.promoted_threads += counters.promoted_threads;
    sum.fibers += counters.fibers;
  }
  return sum;
}

}  // namespace aprime::device
