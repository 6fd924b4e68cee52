#include "host/cli/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "host/cli/report.hpp"
#include "host/cli/size_option.hpp"

namespace aprime::cli {
namespace {

using namespace std::chrono_literals;

constexpr auto kSilence = 500ms;
constexpr auto kBetweenDrawings = 100ms;
constexpr std::size_t kBarColumns = 24;

}  // namespace

TerminalProgress::TerminalProgress(const InterruptWatch& interrupts, bool stoppable)
    : interrupts_(interrupts), stoppable_(stoppable), is_terminal_(::isatty(STDERR_FILENO) == 1) {}

TerminalProgress::~TerminalProgress() { clear(); }

void TerminalProgress::begin(const std::string& phase, ByteCount total) {
  phase_ = phase;
  total_ = total;
  done_ = ByteCount{0};
  phase_began_ = Clock::now();
}

void TerminalProgress::advance(ByteCount done) {
  done_ = done_ + done;
  heed_interrupts();
  if (!is_terminal_) return;
  const Clock::time_point now = Clock::now();
  if (now - created_ >= kSilence && now - drawn_at_ >= kBetweenDrawings) draw(now);
}

void TerminalProgress::heed_interrupts() {
  const int arrived = interrupts_.count();
  if (arrived >= (stoppable_ ? 1 : 2)) throw kernels::Interrupted{};
  if (arrived == 1 && !told_to_wait_) {
    clear();
    tell_line("finishing first, because the file would be left half changed; interrupt again to stop");
    told_to_wait_ = true;
  }
}

void TerminalProgress::draw(Clock::time_point now) {
  const double fraction =
      total_.value == 0 ? 1.0
                        : std::min(1.0, static_cast<double>(done_.value) / static_cast<double>(total_.value));
  const double seconds = std::chrono::duration<double>(now - phase_began_).count();
  const double rate = seconds > 0 ? static_cast<double>(done_.value) / seconds : 0;
  const auto filled = static_cast<std::size_t>(fraction * static_cast<double>(kBarColumns));
  tell(fmt::format("\r{} [{:#<{}}{:.<{}}] {:5.1f} %  {}/s\033[K", phase_, "", filled, "",
                   kBarColumns - filled, fraction * 100,
                   format_size(ByteCount{static_cast<std::uint64_t>(rate)})));
  drawn_at_ = now;
  on_screen_ = true;
}

void TerminalProgress::clear() {
  if (!on_screen_) return;
  tell("\r\033[K");
  on_screen_ = false;
}

int TerminalProgress::tell_interrupted(std::string_view what_of_it) {
  clear();
  tell_line(fmt::format("interrupted after {} of {} ({}){}", format_size(done_), format_size(total_), phase_,
                        what_of_it));
  return 128 + interrupts_.last_signal();
}

}  // namespace aprime::cli
