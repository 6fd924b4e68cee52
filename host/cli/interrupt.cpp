#include "host/cli/interrupt.hpp"

#include <atomic>
#include <csignal>

namespace aprime::cli {
namespace {

// A signal handler reaches nothing else.
std::atomic<int> interrupt_count = 0;
std::atomic<int> interrupt_signal = 0;
static_assert(std::atomic<int>::is_always_lock_free);

void set_action(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

InterruptWatch::InterruptWatch() {
  interrupt_count = 0;
  set_action([](int number) {
    interrupt_signal = number;
    ++interrupt_count;
  });
}

InterruptWatch::~InterruptWatch() { set_action(SIG_DFL); }

int InterruptWatch::count() const noexcept { return interrupt_count; }
int InterruptWatch::last_signal() const noexcept { return interrupt_signal; }

}  // namespace aprime::cli
