#include "host/cli/run_command.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "aprime/error.hpp"
#include "host/cli/exit_code.hpp"
#include "host/cli/host_traffic.hpp"
#include "host/cli/interrupt.hpp"
#include "host/cli/progress.hpp"
#include "host/cli/report.hpp"
#include "host/cli/size_option.hpp"

namespace aprime::cli {
namespace {

using Clock = std::chrono::steady_clock;

std::vector<Mapping> map_files(Runtime& runtime, const kernels::Workload& workload,
                               const RunOptions& options) {
  std::vector<Mapping> files;
  for (const kernels::Argument& argument : workload.arguments) {
    const auto* access = std::get_if<Access>(&argument.value);
    if (access == nullptr) continue;
    const std::string& path = options.arguments.files.at(files.size());
    files.push_back(runtime.map(path, options.concurrent_host ? Access::read_write : *access));
    const std::uint64_t size = files.back().size_bytes().value;
    if (size % workload.element_bytes != 0) {
      throw kernels::InputError(fmt::format(
          "{}: its size, {} bytes, is not a multiple of the {} bytes of an element; "
          "cut or pad it to {} bytes",
          path, size, workload.element_bytes, size / workload.element_bytes * workload.element_bytes));
    }
  }
  return files;
}

/// Gives every hole of the file its disk space. A file system that cannot do so is left to report a full disk
/// later.
void reserve_disk_space(const std::string& path, ByteCount size) {
  if (size.value == 0) return;
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  int error = fd < 0 ? errno : 0;
  if (fd >= 0) {
    while (::fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(size.value)) != 0) {
      error = errno;
      if (error != EINTR) break;
      error = 0;
    }
    ::close(fd);
  }
  if (error != 0 && error != EOPNOTSUPP) {
    throw kernels::InputError(
        fmt::format("{}: no disk space for all of the file, which every part of will be stored to: {}; "
                    "nothing was changed",
                    path, std::strerror(error)));
  }
}

/// For each file whether the workload stores to it.
std::vector<bool> changed_files(const kernels::Workload& workload) {
  std::vector<bool> changed;
  for (const kernels::Argument& argument : workload.arguments) {
    const auto* access = std::get_if<Access>(&argument.value);
    if (access != nullptr) changed.push_back(*access == Access::read_write);
  }
  return changed;
}

void sync_changed(const kernels::Workload& workload, std::span<const Mapping> files) {
  const std::vector<bool> changed = changed_files(workload);
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (changed[i]) files[i].sync();
  }
}

bool changes_files(const kernels::Workload& workload) {
  const std::vector<bool> changed = changed_files(workload);
  return std::find(changed.begin(), changed.end(), true) != changed.end();
}

/// The file that a report is about: the one that is changed, if there is one.
const std::string& reported_file(const kernels::Workload& workload, const RunOptions& options) {
  const std::vector<bool> changed = changed_files(workload);
  const auto first = std::find(changed.begin(), changed.end(), true);
  const auto number = static_cast<std::size_t>(first - changed.begin());
  return options.arguments.files[first == changed.end() ? 0 : number];
}

RunReport describe_run(const kernels::Workload& workload, const RunOptions& options, const Runtime& runtime,
                       std::span<const Mapping> files) {
  RunReport report;
  report.workload = workload.name;
  report.device = runtime.devices().front();
  report.file = reported_file(workload, options);
  for (const Mapping& file : files) report.bytes = report.bytes + file.size_bytes();
  return report;
}

/// A run failed: saves what can still be saved. Bytes that cannot be written back (disk full, I/O error) end
/// with the process, which is told in the same line and not in a second one by the runtime's destructor.
void save_the_rest(Runtime& runtime, const std::exception& error) {
  try {
    runtime.close();
  } catch (const Error& lost) {
    fmt::print(stderr, "aprime: {}; bytes that the device had changed are not in the file ({} of them)\n",
               error.what(), format_size(ByteCount{runtime.stats().dirty_bytes}));
    std::fflush(stderr);
    std::_Exit(ExitCode::failed);
  }
}

/// Runs the workload, ends the CPU's traffic, and syncs. False if it was interrupted.
bool execute(const kernels::Workload& workload, const RunOptions& options, kernels::Session& session,
             std::span<const Mapping> files, RunReport& report) {
  bool is_complete = true;
  try {
    std::optional<HostTraffic> traffic;
    if (options.concurrent_host) traffic.emplace(files, !changes_files(workload));
    report.result = workload.run(session, options.arguments, files);
    if (traffic) report.host_traffic = traffic->stop();
  } catch (const kernels::Interrupted&) {
    is_complete = false;
  }
  sync_changed(workload, files);
  return is_complete;
}

int report_interrupt(const InterruptWatch& interrupts, const TerminalProgress& progress, bool changed) {
  fmt::print(stderr, "aprime: interrupted after {}{}\n", progress.position(),
             changed ? "; what was done is in the file and on disk" : "");
  return 128 + interrupts.last_signal();
}

}  // namespace

int run_command(const kernels::Workload& workload, const RunOptions& options) {
  const InterruptWatch interrupts;
  Runtime runtime(options.device.runtime_options());
  const std::vector<Mapping> files = map_files(runtime, workload, options);
  if (workload.validate != nullptr) workload.validate(options.arguments, files);
  if (workload.needs_disk_space) {
    reserve_disk_space(options.arguments.files.front(), files.front().size_bytes());
  }
  RunReport report = describe_run(workload, options, runtime, files);
  std::unique_ptr<kernels::Check> check;
  if (options.verify) check = workload.make_check(options.arguments);

  TerminalProgress progress(interrupts, workload.stoppable);
  kernels::Session session(runtime, options.device.granule, options.device.memory, progress);
  const Clock::time_point began = Clock::now();
  try {
    const bool is_complete = execute(workload, options, session, files, report);
    progress.clear();
    if (!is_complete) return report_interrupt(interrupts, progress, changes_files(workload));
  } catch (const std::exception& error) {
    progress.clear();
    save_the_rest(runtime, error);
    throw;
  }
  report.seconds = std::chrono::duration<double>(Clock::now() - began).count();
  report.stats = runtime.stats();

  if (check) {
    report.disagreement = check->disagreement(report.result);
    report.verified = report.disagreement.empty();
  }
  print(options.device.json ? to_json(report) : to_text(report));
  if (report.verified == false) throw Disagreement(fmt::format("{}: {}", report.file, report.disagreement));
  return ExitCode::done;
}

}  // namespace aprime::cli
