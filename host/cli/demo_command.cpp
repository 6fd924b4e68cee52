#include "host/cli/demo_command.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "aprime/runtime.hpp"
#include "host/cli/exit_code.hpp"
#include "host/cli/interrupt.hpp"
#include "host/cli/progress.hpp"
#include "host/cli/report.hpp"
#include "host/cli/size_option.hpp"
#include "host/cli/workload_run.hpp"
#include "kernels/histogram.hpp"
#include "kernels/plain_file.hpp"
#include "kernels/uppercase.hpp"

namespace aprime::cli {
namespace {

using Bins = std::array<std::uint64_t, 256>;

std::string lower_case_letters(const Bins& bins) {
  std::uint64_t count = 0;
  for (unsigned letter = 'a'; letter <= 'z'; ++letter) count += bins[letter];
  return grouped(count);
}

Bins after_upper_casing(Bins bins) {
  for (unsigned letter = 'a'; letter <= 'z'; ++letter) {
    bins[letter - 'a' + 'A'] += bins[letter];
    bins[letter] = 0;
  }
  return bins;
}

Bins count_through_pointer(std::span<const unsigned char> bytes) {
  Bins bins{};
  for (const unsigned char byte : bytes) ++bins[byte];
  return bins;
}

Bins count_by_read(const kernels::RunFile& file) {
  Bins bins{};
  kernels::for_each_element<unsigned char>(file, [&](std::uint64_t, unsigned char byte) { ++bins[byte]; });
  return bins;
}

/// What is told of the CPU's pointer when it meets SIGBUS.
struct CpuLook {
  explicit CpuLook(const Mapping& file)
      : path(file.path()),
        size(file.size_bytes()),
        truncated(as_line(fmt::format("{}: was truncated by another process while the CPU read it through a "
                                      "pointer; what only the device had is lost",
                                      path))),
        failed(as_line(fmt::format("{}: could not be read through a pointer, because its disk is full or "
                                   "fails; what only the device had is lost",
                                   path))) {}

  const std::string path;
  const ByteCount size;
  const std::string truncated;
  const std::string failed;
};

// A signal handler reaches nothing else. Null while the CPU does not look.
std::atomic<const CpuLook*> cpu_look = nullptr;

void tell_bus_error(int number) {
  const CpuLook* const look = cpu_look;
  if (look == nullptr) {
    ::signal(number, SIG_DFL);  // and the access fails again
    return;
  }
  struct ::stat now {};
  const bool is_shorter =
      ::stat(look->path.c_str(), &now) == 0 && static_cast<std::uint64_t>(now.st_size) < look->size.value;
  const std::string& line = is_shorter ? look->truncated : look->failed;
  static_cast<void>(!::write(STDERR_FILENO, line.data(), line.size()));
  ::_exit(ExitCode::failed);
}

/// A pointer beyond the end of the file, or to bytes that cannot come home, has no other way to say so than
/// SIGBUS. To be there before the runtime, which hands on what is not its own.
class BusErrorWatch {
 public:
  BusErrorWatch() { ::signal(SIGBUS, tell_bus_error); }
};

class Demo {
 public:
  Demo(const std::string& path, const DeviceChoice& choice)
      : path_(path),
        runtime_(make_runtime(choice.runtime_options())),
        file_(map_for_user(
            [this](const std::string& file, Access access) { return map_plain_file(runtime_, file, access); },
            path, Access::read_write, true)),
        progress_(interrupts_, true),
        session_(runtime_, choice.granule, choice.memory, progress_) {
    arguments_.files = {path};
  }

  /// Returns the exit status.
  int run() {
    try {
      show();
    } catch (const kernels::Interrupted&) {
      progress_.clear();
      file_.sync();
      return progress_.tell_interrupted(kDoneIsOnDisk);
    }
    return agrees_ ? ExitCode::done : ExitCode::failed;
  }

 private:
  void show() {
    const DeviceInfo device = runtime_.devices().front();
    print(fmt::format("{}: {}, mapped for the CPU and for the device '{}' ({} of memory) at once.\n", path_,
                      format_size(file_.size_bytes()), device.name, format_size(device.memory)));
    for (const auto look : {&Demo::kernel_reads, &Demo::kernel_stores, &Demo::others_look, &Demo::cpu_looks,
                            &Demo::sync_and_look}) {
      progress_.heed_interrupts();
      (this->*look)();
    }
    print(agrees_ ? "Everybody saw the same bytes.\n" : "SOMETHING DISAGREED: see above.\n");
  }

  void kernel_reads() {
    const auto check = kernels::histogram.make_check(arguments_, run_files(arguments_, files()));
    const auto result = kernels::histogram.run(session_, arguments_, files());
    const auto& bins = std::get<std::vector<std::uint64_t>>(result.front().second);
    std::copy(bins.begin(), bins.end(), before_.begin());
    const Stats stats = runtime_.stats();
    step("A kernel read the file and counted its bytes",
         fmt::format("{} of them are lower-case letters; {} were copied to the device.",
                     lower_case_letters(before_), format_size(ByteCount{stats.bytes_filled})),
         check->disagreement(result));
  }

  void kernel_stores() {
    changed_ = kernels::uppercase.make_check(arguments_, run_files(arguments_, files()));
    const Stats before = runtime_.stats();
    kernels::uppercase.run(session_, arguments_, files());
    const Stats stats = runtime_.stats();
    const std::uint64_t faults = stats.faults.device_write - before.faults.device_write;
    step("Another kernel turned them into upper case, in place",
         fmt::format("It took {} device fault{} to write; {} now exist only in device memory.",
                     grouped(faults), faults == 1 ? "" : "s", format_size(ByteCount{stats.dirty_bytes})),
         {});
  }

  void others_look() {
    const std::string stale = lower_case_letters(count_by_read({path_, file_.size_bytes()}));
    step("A plain read(2), as any other process would do it, before any sync",
         fmt::format("It still found {} lower-case letters, as promised: what was last written back.", stale),
         {});
  }

  void cpu_looks() {
    const Stats before = runtime_.stats();
    const CpuLook look(file_);
    cpu_look = &look;
    const Bins seen = count_through_pointer(file_.host<const unsigned char>());
    cpu_look = nullptr;
    const Stats stats = runtime_.stats();
    const std::uint64_t faults = stats.faults.host_read - before.faults.host_read;
    const bool as_expected = seen == after_upper_casing(before_);
    step("The CPU read the whole file through a pointer, before any sync",
         fmt::format("It found {} lower-case letters; {} of its loads trapped and brought {} back.",
                     lower_case_letters(seen), grouped(faults),
                     format_size(ByteCount{stats.bytes_copied_back - before.bytes_copied_back})),
         as_expected ? "" : "its bytes are not those that the kernel stored");
  }

  void sync_and_look() {
    file_.sync();
    step("After sync(), every process sees the stores, and they are on disk",
         fmt::format("Plain read(2) found {} lower-case letters.",
                     lower_case_letters(count_by_read({path_, file_.size_bytes()}))),
         changed_->disagreement({}));
  }

  void step(const std::string& what, const std::string& seen, const std::string& disagreement) {
    progress_.clear();
    print(fmt::format("{}. {}.\n   {}\n", ++steps_, what, seen));
    if (disagreement.empty()) return;
    print(fmt::format("   DISAGREES: {}\n", disagreement));
    agrees_ = false;
  }

  std::span<const Mapping> files() const { return {&file_, 1}; }

  std::string path_;
  InterruptWatch interrupts_;
  BusErrorWatch bus_errors_;
  Runtime runtime_;
  Mapping file_;
  TerminalProgress progress_;
  kernels::Session session_;
  kernels::Arguments arguments_;
  std::unique_ptr<kernels::Check> changed_;
  Bins before_{};
  int steps_ = 0;
  bool agrees_ = true;
};

}  // namespace

int demo_command(const std::string& path, const DeviceChoice& choice) { return Demo(path, choice).run(); }

}  // namespace aprime::cli
