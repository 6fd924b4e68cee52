#include "host/cli/run_command.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <optional>

#include "aprime/error.hpp"
#include "aprime/mount_call.hpp"
#include "host/cli/exit_code.hpp"
#include "host/cli/interrupt.hpp"
#include "host/cli/mounted_run.hpp"
#include "host/cli/progress.hpp"
#include "host/cli/report.hpp"
#include "host/cli/size_option.hpp"
#include "host/cli/workload_run.hpp"

namespace aprime::cli {
namespace {

using Clock = std::chrono::steady_clock;

void sync_changed(const kernels::Workload& workload, std::span<const Mapping> files) {
  const std::vector<bool> changed = changed_files(workload);
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (changed[i]) files[i].sync();
  }
}

/// A run failed: saves what can still be saved. Bytes that cannot be written back (disk full, I/O error) end
/// with the process, which is told in the same line and not in a second one by the runtime's destructor.
void save_the_rest(Runtime& runtime, const std::exception& error) {
  try {
    runtime.close();
  } catch (const Error& lost) {
    // Where both have one cause, the run's own words for it may be those of a sync, which can be had again.
    const auto* why = dynamic_cast<const Error*>(&error);
    const bool is_one_cause = why != nullptr && why->code() == lost.code() && why->path() == lost.path();
    tell_line(fmt::format("{}; bytes that the device had changed are not in the file ({} of them)",
                          is_one_cause ? lost.what() : fmt::format("{}; {}", error.what(), lost.what()),
                          format_size(ByteCount{runtime.stats().dirty_bytes})));
    std::_Exit(ExitCode::failed);
  }
}

/// Returns the exit status if it was interrupted, nothing if it is complete.
std::optional<int> compute_and_sync(const kernels::Workload& workload, const RunOptions& options,
                                    Runtime& runtime, std::span<const Mapping> files, RunReport& report) {
  const InterruptWatch interrupts;
  TerminalProgress progress(interrupts, workload.stoppable);
  kernels::Session session(runtime, options.device.granule, options.device.memory, progress);
  const Clock::time_point began = Clock::now();
  try {
    const bool is_complete =
        compute(workload, options.arguments, options.concurrent_host, session, files, report);
    sync_changed(workload, files);
    progress.clear();
    if (!is_complete) return progress.tell_interrupted(changes_files(workload) ? kDoneIsOnDisk : "");
  } catch (const std::exception& error) {
    progress.clear();
    save_the_rest(runtime, error);
    throw;
  }
  report.seconds = std::chrono::duration<double>(Clock::now() - began).count();
  report.stats = runtime.stats();
  return std::nullopt;
}

int run_here(const kernels::Workload& workload, const RunOptions& options) {
  Runtime runtime = make_runtime(options.device.runtime_options());
  const std::vector<Mapping> files = prepare_files(
      workload, options.arguments, options.concurrent_host,
      [&](const std::string& path, Access access) { return map_plain_file(runtime, path, access); });
  // The check may take its time, and asks nobody whether to stop. Before the run nothing has changed, after
  // it all is on disk: a signal that ends the process there does no harm.
  std::unique_ptr<kernels::Check> check;
  if (options.verify) check = workload.make_check(options.arguments, run_files(options.arguments, files));
  RunReport report;
  if (const auto interrupted = compute_and_sync(workload, options, runtime, files, report))
    return *interrupted;
  return conclude(report, check.get(), options.device.json);
}

}  // namespace

int run_command(const kernels::Workload& workload, const RunOptions& options) {
  std::vector<MountedPath> mounted;
  std::string elsewhere;
  for (const std::string& path : options.arguments.files) {
    if (const auto found = find_on_mount(path)) {
      mounted.push_back(*found);
    } else {
      elsewhere = path;
    }
  }
  if (mounted.empty()) return run_here(workload, options);
  for (const MountedPath& found : mounted) {
    if (found.mountpoint != mounted.front().mountpoint) elsewhere = found.mountpoint + "/" + found.path;
  }
  if (elsewhere.empty()) return run_on_mount(workload, options, mounted);
  throw kernels::InputError(
      fmt::format("{}: does not lie on the mount {}, as other files of the run do; one run uses one runtime: "
                  "give files of one mount, or of none",
                  elsewhere, mounted.front().mountpoint));
}

}  // namespace aprime::cli
