#include "host/cli/mounted_run.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <list>
#include <memory>
#include <optional>

#include "host/cli/exit_code.hpp"
#include "host/cli/interrupt.hpp"
#include "host/cli/progress.hpp"
#include "host/cli/report.hpp"
#include "host/cli/run_messages.hpp"
#include "host/cli/workload_run.hpp"

namespace aprime::cli {
namespace {

using namespace std::chrono_literals;

/// How soon an interrupt is noticed.
constexpr auto kTick = 100ms;

/// A mount is in use while a run is on, as by any program that has a file open.
class InUse {
 public:
  explicit InUse(const std::string& path) : fd_(::open(path.c_str(), O_PATH | O_CLOEXEC)) {}
  ~InUse() {
    if (fd_ >= 0) ::close(fd_);
  }
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;

 private:
  int fd_;
};

/// The caller's side of a run.
class MountedRun {
 public:
  MountedRun(const kernels::Workload& workload, const RunOptions& options, std::span<const MountedPath> files)
      : workload_(workload), options_(options), connection_(options.arguments.files.front()) {
    for (const std::string& path : options.arguments.files) in_use_.emplace_back(path);
    connection_.send(request_of(workload, options, files));
  }

  /// Returns the exit status.
  int follow() {
    MountMessage ready;
    while (ready.type != kReady) ready = receive();
    // As in a process of its own: signals are heeded from the moment at which files may change, and for as
    // long.
    std::unique_ptr<kernels::Check> check;
    if (options_.verify)
      check = workload_.make_check(options_.arguments, run_files_of(ready, options_.arguments.files));
    RunReport report;
    if (const auto interrupted = watch(report)) return *interrupted;
    return conclude(report, check.get(), options_.device.json);
  }

 private:
  static constexpr const char* kNothing = "";

  MountMessage receive() { return connection_.receive(kTick).value_or(MountMessage{kNothing}); }

  /// Follows the run itself. Returns the exit status if it was interrupted, nothing if it is complete.
  std::optional<int> watch(RunReport& report) {
    const InterruptWatch interrupts;
    TerminalProgress progress(interrupts, workload_.stoppable);
    connection_.send({kGo});
    for (;;) {
      const MountMessage answer = receive();
      if (answer.type == kDone) {
        report = report_of(answer);
        report.workload = workload_.name;
        report.file = reported_file(workload_, options_.arguments);
        return std::nullopt;
      }
      if (answer.type == kInterrupted) return tell_interrupt(progress, "; what was done is in the file");
      if (is_left_) return tell_interrupt(progress, "; the run itself has not ended yet");
      if (answer.type == kDisagreement) throw Disagreement(text_of(answer));
      try {
        if (answer.type == kProgress) {
          show(progress, progress_of(answer));
        } else {
          progress.heed_interrupts();
        }
      } catch (const kernels::Interrupted&) {
        interrupt(interrupts.count());
      }
    }
  }

  void show(TerminalProgress& progress, const RunProgress& now) {
    if (now.phase != phase_ || now.total != total_ || now.done.value < done_.value) {
      progress.begin(phase_ = now.phase, total_ = now.total);
      done_ = {};
    }
    const ByteCount more{now.done.value - done_.value};
    done_ = now.done;
    progress.advance(more);
  }

  void interrupt(int count) {
    if (interrupts_told_ == 0) {
      connection_.send({kInterrupt});
      interrupts_told_ = count;
    }
    // Once more: then it is not waited for.
    is_left_ = count > interrupts_told_;
  }

  int tell_interrupt(TerminalProgress& progress, const char* what_of_it) const {
    return progress.tell_interrupted(changes_files(workload_) || is_left_ ? what_of_it : "");
  }

  const kernels::Workload& workload_;
  const RunOptions& options_;
  MountConnection connection_;
  std::list<InUse> in_use_;
  std::string phase_;
  ByteCount total_;
  ByteCount done_;
  int interrupts_told_ = 0;
  bool is_left_ = false;
};

}  // namespace

int run_on_mount(const kernels::Workload& workload, const RunOptions& options,
                 std::span<const MountedPath> files) {
  return MountedRun(workload, options, files).follow();
}

}  // namespace aprime::cli
