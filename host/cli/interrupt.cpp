#include "host/cli/interrupt.hpp"

#include <atomic>

namespace aprime::cli {
namespace {

// A signal handler reaches nothing else.
std::atomic<int> interrupt_count = 0;
std::atomic<int> interrupt_signal = 0;
std::atomic<bool> hung_up = false;
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

void note(int number) {
  if (number == SIGHUP && hung_up.exchange(true)) return;
  interrupt_signal = number;
  ++interrupt_count;
}

}  // namespace

InterruptWatch::InterruptWatch() {
  interrupt_count = 0;
  hung_up = false;
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) replace(number, note);
  replace(SIGPIPE, SIG_IGN);
}

InterruptWatch::~InterruptWatch() {
  for (const Replaced& replaced : replaced_) ::sigaction(replaced.number, &replaced.action, nullptr);
}

void InterruptWatch::replace(int number, void (*handler)(int)) {
  struct sigaction old {};
  ::sigaction(number, nullptr, &old);
  if ((old.sa_flags & SA_SIGINFO) == 0 && old.sa_handler == SIG_IGN) return;
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  ::sigaction(number, &action, nullptr);
  replaced_.push_back({number, old});
}

int InterruptWatch::count() const noexcept { return interrupt_count; }
int InterruptWatch::last_signal() const noexcept { return interrupt_signal; }

}  // namespace aprime::cli
