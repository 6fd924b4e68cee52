#include "host/cli/workload_run.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <optional>

#include "host/cli/exit_code.hpp"
#include "host/cli/host_traffic.hpp"

namespace aprime::cli {
namespace {

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

}  // namespace

std::vector<Mapping> prepare_files(const kernels::Workload& workload, const kernels::Arguments& arguments,
                                   bool concurrent_host, const MapFile& map) {
  std::vector<Mapping> files;
  for (const kernels::Argument& argument : workload.arguments) {
    const auto* access = std::get_if<Access>(&argument.value);
    if (access == nullptr) continue;
    const std::string& path = arguments.files.at(files.size());
    files.push_back(map(path, concurrent_host ? Access::read_write : *access));
    const std::uint64_t size = files.back().size_bytes().value;
    if (size % workload.element_bytes != 0) {
      throw kernels::InputError(fmt::format(
          "{}: its size, {} bytes, is not a multiple of the {} bytes of an element; "
          "cut or pad it to {} bytes",
          path, size, workload.element_bytes, size / workload.element_bytes * workload.element_bytes));
    }
  }
  if (workload.validate != nullptr) workload.validate(arguments, files);
  if (workload.needs_disk_space) reserve_disk_space(arguments.files.front(), files.front().size_bytes());
  return files;
}

bool compute(const kernels::Workload& workload, const kernels::Arguments& arguments, bool concurrent_host,
             kernels::Session& session, std::span<const Mapping> files, RunReport& report) {
  report.workload = workload.name;
  report.device = session.runtime().devices().front();
  report.file = reported_file(workload, arguments);
  for (const Mapping& file : files) report.bytes = report.bytes + file.size_bytes();
  std::optional<HostTraffic> traffic;
  if (concurrent_host) traffic.emplace(files, arguments.files, !changes_files(workload));
  std::exception_ptr ended;
  try {
    report.result = workload.run(session, arguments, files);
  } catch (...) {
    ended = std::current_exception();
  }
  try {
    if (traffic) report.host_traffic = traffic->stop();
  } catch (const Disagreement&) {
    throw;  // however the workload ended
  } catch (...) {
    if (!ended) throw;
  }
  try {
    if (ended) std::rethrow_exception(ended);
  } catch (const kernels::Interrupted&) {
    return false;
  }
  return true;
}

std::vector<bool> changed_files(const kernels::Workload& workload) {
  std::vector<bool> changed;
  for (const kernels::Argument& argument : workload.arguments) {
    const auto* access = std::get_if<Access>(&argument.value);
    if (access != nullptr) changed.push_back(*access == Access::read_write);
  }
  return changed;
}

bool changes_files(const kernels::Workload& workload) {
  const std::vector<bool> changed = changed_files(workload);
  return std::find(changed.begin(), changed.end(), true) != changed.end();
}

const std::string& reported_file(const kernels::Workload& workload, const kernels::Arguments& arguments) {
  const std::vector<bool> changed = changed_files(workload);
  const auto first = std::find(changed.begin(), changed.end(), true);
  const auto number = static_cast<std::size_t>(first - changed.begin());
  return arguments.files[first == changed.end() ? 0 : number];
}

}  // namespace aprime::cli
