#include "host/cli/mounted_run.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <list>

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
      : workload_(workload),
        options_(options),
        connection_(options.arguments.files.front()),
        progress_(interrupts_, workload.stoppable) {
    for (const std::string& path : options.arguments.files) in_use_.emplace_back(path);
    connection_.send(request_of(workload, options, files));
  }

  int follow() {
    for (;;) {
      std::optional<MountMessage> answer = connection_.receive(kTick);
      if (!answer) answer = MountMessage{kNothing};
      if (answer->type == kDone) return conclude_with(*answer);
      if (answer->type == kInterrupted) return tell_interrupt("; what was done is in the file");
      if (is_left_) return tell_interrupt("; the run itself has not ended yet");
      take(*answer);
    }
  }

 private:
  static constexpr const char* kNothing = "";

  void take(const MountMessage& answer) {
    if (answer.type == kReady) {
      if (options_.verify) check_ = workload_.make_check(options_.arguments);
      connection_.send({kGo});
    } else if (answer.type == kDisagreement) {
      progress_.clear();
      throw Disagreement(text_of(answer));
    }
    try {
      if (answer.type == kProgress) {
        show(progress_of(answer));
      } else {
        progress_.heed_interrupts();
      }
    } catch (const kernels::Interrupted&) {
      interrupt();
    }
  }

  void show(const RunProgress& now) {
    if (now.phase != phase_ || now.total != total_ || now.done.value < done_.value) {
      progress_.begin(phase_ = now.phase, total_ = now.total);
      done_ = {};
    }
    const ByteCount more{now.done.value - done_.value};
    done_ = now.done;
    progress_.advance(more);
  }

  void interrupt() {
    if (interrupts_told_ == 0) {
      connection_.send({kInterrupt});
      interrupts_told_ = interrupts_.count();
    }
    // Once more: then it is not waited for.
    is_left_ = interrupts_.count() > interrupts_told_;
  }

  int tell_interrupt(const char* what_of_it) {
    return progress_.tell_interrupted(changes_files(workload_) || is_left_ ? what_of_it : "");
  }

  int conclude_with(const MountMessage& answer) {
    progress_.clear();
    RunReport report = report_of(answer);
    report.workload = workload_.name;
    report.file = reported_file(workload_, options_.arguments);
    return conclude(report, check_.get(), options_.device.json);
  }

  const kernels::Workload& workload_;
  const RunOptions& options_;
  const InterruptWatch interrupts_;
  MountConnection connection_;
  std::list<InUse> in_use_;
  TerminalProgress progress_;
  std::unique_ptr<kernels::Check> check_;
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
