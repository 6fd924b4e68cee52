#include "host/cli/workload_run.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <limits>
#include <optional>

#include "host/cli/exit_code.hpp"
#include "host/cli/host_traffic.hpp"

namespace aprime::cli {
namespace {

/// More of them are given back only in part.
constexpr std::size_t kHolesMax = std::size_t{1} << 20;

struct Part {
  off_t at;
  off_t end;
};

/// What of [at, end) holds no data, as far as the file system tells; `visit(part)` for each, in order.
template <class Visit>
void for_each_hole(int fd, Part range, Visit visit) {
  for (off_t at = range.at; at < range.end;) {
    const off_t hole = ::lseek(fd, at, SEEK_HOLE);
    if (hole < 0 || hole >= range.end) return;
    const off_t data = ::lseek(fd, hole, SEEK_DATA);
    at = data < 0 ? range.end : std::min(data, range.end);
    visit(Part{hole, at});
  }
}

/// Of the file system, in bytes.
std::uint64_t free_space(int fd) {
  struct statvfs system {};
  if (::fstatvfs(fd, &system) != 0) return std::numeric_limits<std::uint64_t>::max();
  return (::geteuid() == 0 ? system.f_bfree : system.f_bavail) * system.f_frsize;
}

/// On a mount, stores by mmap that the kernel has not passed on yet look like a hole.
bool tells_holes_well(int fd) {
  struct statfs system {};
  return ::fstatfs(fd, &system) == 0 && system.f_type != FUSE_SUPER_MAGIC;
}

/// Zero, or why not.
int reserve(int fd, std::uint64_t size) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return errno;
  const auto block = static_cast<std::uint64_t>(info.st_blksize);
  const Part all{0, static_cast<off_t>((size + block - 1) / block * block)};
  std::vector<Part> holes;
  std::uint64_t missing = 0;
  for_each_hole(fd, all, [&](Part hole) {
    if (holes.size() < kHolesMax) holes.push_back(hole);
    missing += static_cast<std::uint64_t>(hole.end - hole.at);
  });
  // A part that is reserved already looks like a hole, and one that is compressed has fewer blocks than
  // bytes.
  const std::uint64_t has = static_cast<std::uint64_t>(info.st_blocks) * 512;
  missing = std::min(missing, size - std::min(size, has));
  if (missing > free_space(fd)) return ENOSPC;
  int error = 0;
  do {
    error = ::fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(size)) == 0 ? 0 : errno;
  } while (error == EINTR);
  if (error == 0 || !tells_holes_well(fd)) return error;
  // Some file systems, ext4 for one, keep what they gave until there was no more. Nobody's bytes are taken:
  // what others have stored meanwhile is a hole no more. Nor is what was only read, until it is forgotten.
  for (const Part& hole : holes) {
    ::posix_fadvise(fd, hole.at, hole.end - hole.at, POSIX_FADV_DONTNEED);
    for_each_hole(fd, hole, [&](Part still) {
      ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, still.at, still.end - still.at);
    });
  }
  return error;
}

/// Gives every hole of the file its disk space, or changes nothing. A file system that cannot do so is left
/// to report a full disk later.
void reserve_disk_space(const std::string& path, ByteCount size) {
  if (size.value == 0) return;
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const int error = fd < 0 ? errno : reserve(fd, size.value);
  if (fd >= 0) ::close(fd);
  if (error != 0 && error != EOPNOTSUPP) {
    throw kernels::InputError(
        fmt::format("{}: no disk space for all of the file, every part of which will be stored to: {}; "
                    "nothing was changed",
                    path, std::strerror(error)));
  }
}

bool is_same_file(const std::string& path, const std::string& other) {
  struct stat info {};
  struct stat other_info {};
  return ::stat(path.c_str(), &info) == 0 && ::stat(other.c_str(), &other_info) == 0 &&
         info.st_dev == other_info.st_dev && info.st_ino == other_info.st_ino;
}

/// \throws InputError if a file that the workload stores to is another of its files as well
void require_separate_files(const std::vector<std::string>& paths, const std::vector<bool>& changed) {
  for (std::size_t i = 0; i < paths.size(); ++i) {
    for (std::size_t j = 0; j < paths.size(); ++j) {
      if (i == j || !changed[i] || !is_same_file(paths[i], paths[j])) continue;
      throw kernels::InputError(fmt::format(
          "{}: is the same file as {}, which is stored to; make a copy of it", paths[j], paths[i]));
    }
  }
}

}  // namespace

Mapping map_plain_file(Runtime& runtime, const std::string& path, Access access) {
  Mapping file = runtime.map(path, access);
  const auto size = static_cast<off_t>(file.size_bytes().value);
  // What may stand there by now shall not be waited for.
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return file;
  struct stat info {};
  bool is_honest = true;
  int error = 0;
  if (::fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size == size) {
    char byte = 0;
    const ssize_t got = ::pread(fd, &byte, 1, std::max<off_t>(size - 1, 0));
    if (got < 0) error = errno;
    is_honest = got == (size == 0 ? 0 : 1);
  }
  ::close(fd);
  if (error != 0)
    throw kernels::InputError(fmt::format("{}: cannot be read: {}", path, std::strerror(error)));
  if (is_honest) return file;
  throw kernels::InputError(fmt::format(
      "{}: its size, {} bytes, is not what it holds; copy it first, and use the copy", path, size));
}

Mapping map_for_user(const MapFile& map, const std::string& path, Access access, bool is_only_file) {
  try {
    return map(path, access);
  } catch (const Error& error) {
    std::string text = error.what();
    constexpr std::string_view kOfPrograms = "open it read-only";
    if (const std::size_t at = text.rfind(kOfPrograms); at != std::string::npos)
      text.replace(at, kOfPrograms.size(), "use a copy");
    if (const std::size_t at = text.rfind("; create it with"); is_only_file && at != std::string::npos)
      text.resize(at);
    throw Error(error.code(), text, error.path(), error.system_error(), error.offset());
  }
}

std::vector<Mapping> prepare_files(const kernels::Workload& workload, const kernels::Arguments& arguments,
                                   bool concurrent_host, const MapFile& map) {
  std::vector<Mapping> files;
  for (const kernels::Argument& argument : workload.arguments) {
    const auto* access = std::get_if<Access>(&argument.value);
    if (access == nullptr) continue;
    const std::string& path = arguments.files.at(files.size());
    files.push_back(
        map_for_user(map, path, concurrent_host ? Access::read_write : *access, arguments.files.size() == 1));
  }
  // Before anything is said about a size, which may be that of a file named by mistake.
  require_separate_files(arguments.files, changed_files(workload));
  for (const kernels::RunFile& file : run_files(arguments, files)) {
    const std::uint64_t size = file.size.value;
    const std::uint64_t less = size / workload.element_bytes * workload.element_bytes;
    if (size == less) continue;
    throw kernels::InputError(
        fmt::format("{}: its size, {} bytes, is not a multiple of the {} bytes of an element; {}pad it to "
                    "{} bytes",
                    file.path, size, workload.element_bytes,
                    less == 0 ? "" : fmt::format("cut it to {} or ", less), less + workload.element_bytes));
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

std::vector<kernels::RunFile> run_files(const kernels::Arguments& arguments, std::span<const Mapping> files) {
  std::vector<kernels::RunFile> all;
  for (const std::string& path : arguments.files) all.push_back({path, files[all.size()].size_bytes()});
  return all;
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
