#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "host/device/fiber.hpp"
#include "tests/explorer/weak_memory.hpp"

namespace aprime::explored {

/// Runs a few threads of a program again and again, in many orders, on one processor: they change places at
/// `step`, which stands before each operation by which one of them can see or change what another does.
///
/// The orders are those of delay-bounded scheduling (Emmi, Qadeer, Rakamaric: "Delay-bounded scheduling",
/// POPL 2011): a thread runs until it sleeps or ends, and then the next one does; a delay makes it stand back
/// once for the next. All ways of placing a few delays are tried, which are few enough to be tried, and most
/// defects need one or two. Memory is sequentially consistent there; in random orders it is a WeakMemory.
class Explorer {
 public:
  explicit Explorer(std::size_t stack_bytes = std::size_t{64} << 10);
  Explorer(const Explorer&) = delete;
  Explorer& operator=(const Explorer&) = delete;

  /// What came of all runs. A failure ends them.
  struct Outcome {
    std::uint64_t runs = 0;
    /// Of the longest.
    std::uint64_t steps = 0;
    /// Empty, or what was wrong and in which order.
    std::string failure;
  };

  /// One run: adds its threads by `add_thread`. Called at the beginning of each.
  using Setup = std::function<void(Explorer&)>;
  /// When all threads of a run have ended: what is wrong, or nothing.
  using Check = std::function<std::string()>;

  /// All orders with so many delays at the most.
  Outcome explore(unsigned delays_max, const Setup& setup, const Check& check);
  /// So many runs in random orders (Burckhardt, Kothari, Musuvathi, Nagarakatte: "A randomized scheduler with
  /// probabilistic guarantees of finding bugs", ASPLOS 2010): of the threads that can run the one with the
  /// highest priority does, and at `drops` steps the one that runs gets the lowest. Threads that look again
  /// and again do not keep others from running for ever: when they sleep they get it now and then.
  Outcome sample(std::uint64_t runs, unsigned drops, const Setup& setup, const Check& check);

  /// To the run that is set up.
  void add_thread(std::function<void()> body);
  /// The explorer whose run is set up.
  static Explorer& being_set_up() noexcept { return *being_set_up_; }

  // For the threads.

  static bool is_running() noexcept { return running_ != nullptr; }
  /// The explorer whose thread is running.
  static Explorer& running() noexcept { return *running_; }
  /// Before an operation that others can tell from its absence.
  void step() noexcept;
  /// Something has changed that a sleeping thread may wait for.
  static void changed() noexcept {
    if (!is_running()) return;
    ++running_->changes_;
    running_->idle_rounds_ = 0;
  }
  /// Until something has changed; or for a while, if nothing does. Where no time passes, what was stored
  /// meanwhile need not be seen afterwards.
  void sleep(bool time_passes = true) noexcept;
  /// Until it is woken there, as nobody else and no time does.
  void block_on(const void* place) noexcept;
  bool is_anybody_blocked() const noexcept;
  /// Of those who are blocked there, one or all.
  void wake_one(const void* place) noexcept;
  void wake_all(const void* place) noexcept;
  /// Sleeps until it is so.
  template <class Condition>
  void wait_until(const Condition& condition) noexcept {
    for (step(); !condition(); step()) sleep();
  }
  /// Ends the calling thread, and leaves what is on its stack alone.
  [[noreturn]] void end_thread() noexcept;
  /// Ends the run: it is as it should not be.
  [[noreturn]] void fail(std::string what) noexcept;
  WeakMemory& memory() noexcept { return memory_; }
  std::size_t number_of_running() const noexcept { return current_; }
  /// Of a sample.
  std::uint64_t random() noexcept { return random_(); }

 private:
  enum class State : std::uint8_t { ready, asleep, blocked, ended };
  struct Thread {
    std::function<void()> body;
    device::Fiber* fiber = nullptr;
    State state = State::ready;
    unsigned priority = 0;
    /// When it fell asleep.
    std::uint64_t changes_seen = 0;
    const void* blocked_on = nullptr;
  };

  /// Beyond, a run is taken for one that does not end.
  static constexpr std::uint64_t kStepsMax = 200'000;
  /// So often all threads that sleep are woken in turn though nothing has changed: time passes.
  static constexpr unsigned kIdleRoundsMax = 400;

  static void main_of_fiber(void* explorer) noexcept;
  /// Whether all is well after it.
  bool run(const Setup& setup, const Check& check, Outcome& outcome);
  void explore_from(std::vector<std::uint64_t>& delays, unsigned left, const Setup& setup, const Check& check,
                    Outcome& outcome);
  /// Whether the running thread is to stand back before a step.
  bool is_delayed() noexcept;
  /// The running thread is not ready any more.
  void leave_it_to_others() noexcept;
  /// Makes a thread that can run the current one, another if there is one. Whether there is any.
  bool choose_next() noexcept;
  bool can_run(const Thread& thread) const noexcept;
  /// Both: the number of threads, if none can run.
  std::size_t next_in_turn() const noexcept;
  std::size_t of_highest_priority() const noexcept;
  [[noreturn]] void leave_run() noexcept;

  static inline thread_local Explorer* being_set_up_ = nullptr;
  static inline thread_local Explorer* running_ = nullptr;

  device::FiberSwitch fibers_;
  device::FiberPool pool_;
  std::vector<Thread> threads_;
  std::size_t current_ = 0;
  WeakMemory memory_{*this};

  // Of the run under way.

  /// Before which steps, from 0 on, the running thread stands back.
  std::vector<std::uint64_t> delays_;
  std::size_t delays_done_ = 0;
  /// A delay at which no other thread could run is none.
  bool delay_was_void_ = false;
  std::uint64_t steps_ = 0;
  std::uint64_t changes_ = 0;
  unsigned idle_rounds_ = 0;
  std::string failure_;

  // Of a sample.
  bool is_sampling_ = false;
  std::mt19937_64 random_;
  unsigned lowest_priority_ = 0;
};

}  // namespace aprime::explored
