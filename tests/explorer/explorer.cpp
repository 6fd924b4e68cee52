#include "tests/explorer/explorer.hpp"

#include <algorithm>
#include <utility>

namespace aprime::explored {
namespace {

/// What threads begin with lies above, and what they get later below.
constexpr unsigned kPriorities = 1U << 30;
/// Of so many sleeps one costs a thread its priority.
constexpr unsigned kSleepsAtPriority = 16;
constexpr const char* kStandstill = "all threads wait, and nothing happens";

}  // namespace

Explorer::Explorer(std::size_t stack_bytes) : pool_(fibers_, stack_bytes, &main_of_fiber, this) {}

void Explorer::add_thread(std::function<void()> body) { threads_.push_back({.body = std::move(body)}); }

Explorer::Outcome Explorer::explore(unsigned delays_max, const Setup& setup, const Check& check) {
  Outcome outcome;
  is_sampling_ = false;
  std::vector<std::uint64_t> delays;
  explore_from(delays, delays_max, setup, check, outcome);
  return outcome;
}

/// The run with these delays, and all that have more delays after them.
void Explorer::explore_from(std::vector<std::uint64_t>& delays, unsigned left, const Setup& setup,
                            const Check& check, Outcome& outcome) {
  delays_ = delays;
  if (!run(setup, check, outcome) || left == 0 || delay_was_void_) return;
  const std::uint64_t steps = steps_;
  for (std::uint64_t at = delays.empty() ? 0 : delays.back() + 1; at < steps; ++at) {
    delays.push_back(at);
    explore_from(delays, left - 1, setup, check, outcome);
    delays.pop_back();
    if (!outcome.failure.empty()) return;
  }
}

Explorer::Outcome Explorer::sample(std::uint64_t runs, unsigned drops, const Setup& setup,
                                   const Check& check) {
  Outcome outcome;
  is_sampling_ = true;
  random_.seed(0);
  delays_.clear();
  // The first has none, and says how long a run is.
  for (bool goes_on = run(setup, check, outcome); goes_on && outcome.runs < runs;
       goes_on = run(setup, check, outcome)) {
    random_.seed(outcome.runs);
    delays_.resize(drops);
    for (std::uint64_t& at : delays_) at = random_() % outcome.steps;
    std::sort(delays_.begin(), delays_.end());
  }
  return outcome;
}

bool Explorer::run(const Setup& setup, const Check& check, Outcome& outcome) {
  threads_.clear();
  steps_ = 0;
  changes_ = 0;
  idle_rounds_ = 0;
  delays_done_ = 0;
  delay_was_void_ = false;
  failure_.clear();
  memory_.begin_run(is_sampling_);
  being_set_up_ = this;
  setup(*this);
  for (Thread& thread : threads_) thread.fiber = pool_.take();
  current_ = 0;
  if (is_sampling_) {
    lowest_priority_ = kPriorities;
    for (Thread& thread : threads_) thread.priority = kPriorities + 1 + random_() % kPriorities;
    current_ = of_highest_priority();
  }
  running_ = this;
  if (!threads_.empty()) fibers_.switch_to(*threads_[current_].fiber);
  running_ = nullptr;
  pool_.take_back_all(true);
  if (failure_.empty()) failure_ = check();
  ++outcome.runs;
  outcome.steps = std::max(outcome.steps, steps_);
  if (failure_.empty()) return true;
  outcome.failure = failure_ + " (run " + std::to_string(outcome.runs) + ", delays before steps";
  for (const std::uint64_t at : delays_) outcome.failure += " " + std::to_string(at);
  outcome.failure += ")";
  return false;
}

void Explorer::main_of_fiber(void* explorer) noexcept {
  auto& self = *static_cast<Explorer*>(explorer);
  self.threads_[self.current_].body();
  self.end_thread();
}

void Explorer::step() noexcept {
  for (;;) {
    ++steps_;
    if (steps_ > kStepsMax) fail("it does not end");
    const std::size_t before = current_;
    if (!is_delayed()) {
      if (!is_sampling_) return;
      // Somebody more urgent may be ready by now.
      current_ = of_highest_priority();
      threads_[current_].state = State::ready;
      if (current_ == before) return;
      fibers_.switch_to(*threads_[current_].fiber);
      continue;
    }
    // There is one: the caller itself.
    static_cast<void>(choose_next());
    delay_was_void_ = current_ == before;
    if (delay_was_void_) return;
    fibers_.switch_to(*threads_[current_].fiber);
  }
}

bool Explorer::is_delayed() noexcept {
  if (delays_done_ == delays_.size() || delays_[delays_done_] > steps_ - 1) return false;
  ++delays_done_;
  return true;
}

void Explorer::sleep(bool time_passes) noexcept {
  if (is_sampling_ && random_() % kSleepsAtPriority == 0) threads_[current_].priority = --lowest_priority_;
  if (time_passes) memory_.pass_time();
  threads_[current_].state = State::asleep;
  threads_[current_].changes_seen = changes_;
  leave_it_to_others();
}

void Explorer::block_on(const void* place) noexcept {
  memory_.pass_time();
  threads_[current_].state = State::blocked;
  threads_[current_].blocked_on = place;
  leave_it_to_others();
}

bool Explorer::is_anybody_blocked() const noexcept {
  return std::any_of(threads_.begin(), threads_.end(),
                     [](const Thread& thread) { return thread.state == State::blocked; });
}

void Explorer::wake_one(const void* place) noexcept {
  const auto blocked = std::find_if(threads_.begin(), threads_.end(), [&](const Thread& thread) {
    return thread.state == State::blocked && thread.blocked_on == place;
  });
  if (blocked != threads_.end()) blocked->state = State::ready;
}

void Explorer::wake_all(const void* place) noexcept {
  for (Thread& thread : threads_)
    if (thread.state == State::blocked && thread.blocked_on == place) thread.state = State::ready;
}

void Explorer::leave_it_to_others() noexcept {
  const std::size_t before = current_;
  if (!choose_next()) fail(kStandstill);
  if (current_ != before) fibers_.switch_to(*threads_[current_].fiber);
}

void Explorer::end_thread() noexcept {
  threads_[current_].state = State::ended;
  changed();
  if (choose_next()) fibers_.switch_to(*threads_[current_].fiber);
  const bool all_ended = std::all_of(threads_.begin(), threads_.end(),
                                     [](const Thread& thread) { return thread.state == State::ended; });
  if (!all_ended) failure_ = kStandstill;
  leave_run();
}

void Explorer::fail(std::string what) noexcept {
  failure_ = std::move(what);
  leave_run();
}

bool Explorer::choose_next() noexcept {
  // A delay.
  if (is_sampling_ && threads_[current_].state == State::ready)
    threads_[current_].priority = --lowest_priority_;
  for (;;) {
    const std::size_t next = is_sampling_ ? of_highest_priority() : next_in_turn();
    if (next != threads_.size()) {
      threads_[next].state = State::ready;
      current_ = next;
      return true;
    }
    bool is_any_asleep = false;
    for (Thread& thread : threads_) {
      if (thread.state != State::asleep) continue;
      thread.state = State::ready;
      is_any_asleep = true;
    }
    if (!is_any_asleep || ++idle_rounds_ > kIdleRoundsMax) return false;
  }
}

bool Explorer::can_run(const Thread& thread) const noexcept {
  return thread.state == State::ready || (thread.state == State::asleep && thread.changes_seen != changes_);
}

std::size_t Explorer::next_in_turn() const noexcept {
  for (std::size_t i = 1; i <= threads_.size(); ++i) {
    const std::size_t next = (current_ + i) % threads_.size();
    if (can_run(threads_[next])) return next;
  }
  return threads_.size();
}

std::size_t Explorer::of_highest_priority() const noexcept {
  std::size_t best = threads_.size();
  for (std::size_t i = 0; i < threads_.size(); ++i)
    if (can_run(threads_[i]) && (best == threads_.size() || threads_[i].priority > threads_[best].priority))
      best = i;
  return best;
}

void Explorer::leave_run() noexcept {
  fibers_.switch_to(fibers_.root());
  __builtin_unreachable();
}

}  // namespace aprime::explored
