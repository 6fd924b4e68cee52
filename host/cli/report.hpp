#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "aprime/runtime.hpp"
#include "aprime/stats.hpp"
#include "aprime/units.hpp"
#include "kernels/workload.hpp"

namespace aprime::cli {

/// What a run did.
struct RunReport {
  std::string workload;
  DeviceInfo device;
  /// The file that was changed or, if none was, the first.
  std::string file;
  /// Of all files together.
  ByteCount bytes;
  /// From the first launch to the end of the sync.
  double seconds = 0;
  /// Empty if not asked for.
  std::optional<bool> verified;
  /// Why `verified` is false.
  std::string disagreement;
  kernels::Result result;
  Stats stats;
  /// Reads and writes by the CPU during the run, for --concurrent-host.
  std::optional<std::pair<std::uint64_t, std::uint64_t>> host_traffic;
};

/// One JSON object, on one line.
std::string to_json(const RunReport& report);
/// For people.
std::string to_text(const RunReport& report);

// What the reports of several commands have in common.
/// With a comma after each three digits, for people.
std::string grouped(std::uint64_t number);
nlohmann::ordered_json faults_json(const FaultStats& faults);
std::string describe_faults(const FaultStats& faults);
std::string describe_moves(const Stats& stats);

/// The end of a run: asks the check, if there is one, and prints the report. Returns the exit status.
/// \throws Disagreement if the check finds one, after the report
int conclude(RunReport& report, kernels::Check* check, bool json);

/// Writes to stdout. \throws std::runtime_error if that fails
void print(const std::string& text);

/// Writes to stderr, all of it at once. A failure is ignored: who does not read what is said must not end the
/// work that it is about.
void tell(std::string_view text) noexcept;

/// "aprime: " and the text, as one line: file names may have line breaks, and what a terminal would obey.
std::string as_line(std::string_view text);

/// Writes that to stderr. Otherwise as `tell`.
void tell_line(std::string_view text);

/// A text of any bytes as a JSON string can hold it: what is no UTF-8 becomes U+FFFD.
std::string printable(const std::string& text);

}  // namespace aprime::cli
