#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "aprime/units.hpp"
#include "host/cli/interrupt.hpp"
#include "kernels/session.hpp"

namespace aprime::cli {

/// What an interrupted command says that has synced what it changed.
inline constexpr const char* kDoneIsOnDisk = "; what was done is in the file and on disk";

/// Shows on stderr how far a workload is, if stderr is a terminal and the work takes longer than half a
/// second, and stops it when an interrupt has arrived. One thread.
class TerminalProgress final : public kernels::Progress {
 public:
  /// `stoppable`: the first interrupt stops the workload. Otherwise it takes two, and the first one is
  /// answered by a line that says why.
  TerminalProgress(const InterruptWatch& interrupts, bool stoppable);
  ~TerminalProgress() override;

  void begin(const std::string& phase, ByteCount total) override;
  void advance(ByteCount done) override;

  /// What `advance` does about interrupts; for times when nothing is known to advance. \throws Interrupted
  void heed_interrupts();

  /// Takes the bar off the screen.
  void clear();

  /// Says how far the workload came, and `what_of_it`. Returns the exit status.
  int tell_interrupted(std::string_view what_of_it);

 private:
  using Clock = std::chrono::steady_clock;

  void draw(Clock::time_point now);

  const InterruptWatch& interrupts_;
  const bool stoppable_;
  const bool is_terminal_;
  const Clock::time_point created_ = Clock::now();
  Clock::time_point phase_began_ = created_;
  Clock::time_point drawn_at_{};
  bool on_screen_ = false;
  bool told_to_wait_ = false;
  std::string phase_;
  ByteCount total_;
  ByteCount done_;
};

}  // namespace aprime::cli
