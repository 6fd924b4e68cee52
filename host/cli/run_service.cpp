#include "host/cli/run_service.hpp"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "aprime/error.hpp"
#include "host/cli/exit_code.hpp"
#include "host/cli/run_messages.hpp"
#include "host/cli/workload_run.hpp"

namespace aprime::cli {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr auto kBetweenReports = 100ms;

/// Tells the caller how far it is, and heeds him: who has gone away has no use for a result, so that a run
/// ends as if interrupted, unless the file would be left half changed.
class CallersProgress final : public kernels::Progress {
 public:
  CallersProgress(MountCall& call, bool stoppable) : call_(call), stoppable_(stoppable) {}

  void begin(const std::string& phase, ByteCount total) override {
    now_ = {phase, total, ByteCount{0}};
    report();
  }
  void advance(ByteCount done) override {
    now_.done = now_.done + done;
    const auto message = call_.receive_now();
    if (message && message->type == kInterrupt) throw kernels::Interrupted{};
    if (stoppable_ && call_.is_over()) throw kernels::Interrupted{};
    if (Clock::now() - reported_at_ >= kBetweenReports) report();
  }
  /// So that the caller knows how far it came.
  void report() {
    call_.offer(message_of(now_));
    reported_at_ = Clock::now();
  }

 private:
  MountCall& call_;
  const bool stoppable_;
  RunProgress now_;
  Clock::time_point reported_at_{};
};

/// What was done from `before` to `after`: by all runs and programs, for the devices do not tell them apart.
Stats difference(const Stats& after, const Stats& before) {
  Stats s;
  s.faults.device_read = after.faults.device_read - before.faults.device_read;
  s.faults.device_write = after.faults.device_write - before.faults.device_write;
  s.faults.host_read = after.faults.host_read - before.faults.host_read;
  s.faults.host_write = after.faults.host_write - before.faults.host_write;
  s.bytes_filled = after.bytes_filled - before.bytes_filled;
  s.bytes_copied_back = after.bytes_copied_back - before.bytes_copied_back;
  s.bytes_bounced = after.bytes_bounced - before.bytes_bounced;
  s.evictions = after.evictions - before.evictions;
  return s;
}

void run(MountCall& call, const RunRequest& request, Runtime& runtime, const DeviceChoice& choice,
         std::span<const Mapping> files) {
  RunReport report;
  CallersProgress progress(call, request.workload->stoppable);
  kernels::Session session(runtime, choice.granule, choice.memory, progress);
  const Stats before = runtime.stats();
  const Clock::time_point began = Clock::now();
  try {
    if (!compute(*request.workload, request.arguments, request.concurrent_host, session, files, report)) {
      progress.report();
      call.send({kInterrupted});
      return;
    }
  } catch (const Disagreement& found) {
    call.send(text_message(kDisagreement, found.what()));
    return;
  }
  report.seconds = std::chrono::duration<double>(Clock::now() - began).count();
  report.stats = difference(runtime.stats(), before);
  call.send(message_of(report));
}

}  // namespace

void RunService::check_options(const std::map<std::string, std::string>& given) const {
  for (const auto& [name, chosen] : mount_options(choice_)) {
    const auto found = given.find(name);
    if (found == given.end() || found->second == chosen) continue;
    if (name == kDeviceOption && found->second == runtime_.devices().front().name) continue;
    throw Error(Errc::invalid_argument, fmt::format("{} {}: this was chosen at `aprime mount`, which has {} "
                                                    "for all runs; leave it out, or mount again",
                                                    name, found->second, chosen));
  }
}

void RunService::serve(MountCall& call) {
  if (call.request().type != kRun)
    throw Error(Errc::invalid_argument,
                fmt::format("the process that serves the mount does not know '{}'", call.request().type));
  RunRequest request = parse_request(call.request());
  check_options(request.given);
  std::vector<std::string> plain;
  for (std::string& path : request.arguments.files) {
    plain.push_back(call.source() + "/" + path);
    path = call.mountpoint() + "/" + path;
  }
  const std::size_t shown = call.mountpoint().size() + 1;
  try {
    std::vector<Mapping> files =
        prepare_files(*request.workload, request.arguments, request.concurrent_host,
                      [&](const std::string& path, Access access) {
                        return call.map(path.substr(shown), access, {.host_access = request.host_access});
                      });
    if (!call.send(ready_message(files))) return;
    const auto go = call.receive();
    if (go && go->type == kGo) {
      run(call, request, runtime_, choice_, files);
    } else if (go) {
      call.send({kInterrupted});
    }
    for (std::size_t i = 0; i < files.size(); ++i) kept_.keep(std::move(files[i]), plain[i]);
  } catch (const kernels::UsageError& error) {
    throw Error(Errc::invalid_argument, error.what());
  } catch (const kernels::InputError& error) {
    throw Error(Errc::cannot_open, error.what());
  }
}

}  // namespace aprime::cli
