#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "aprime/mount_call.hpp"
#include "host/cli/report.hpp"
#include "host/cli/run_command.hpp"

// What `aprime run` and the process of `aprime mount` say to each other. The caller sends kRun; the answer is
// kReady, with how much of each file is mapped, when nothing speaks against the run; nothing has changed yet.
// On kGo it begins. Then there may be any number of kProgress, and last kDone, kInterrupted or kDisagreement;
// or an error at any time. kInterrupt, at any time after kRun, asks for an end between two launches.

namespace aprime::cli {

inline constexpr const char* kRun = "run";
inline constexpr const char* kReady = "ready";
inline constexpr const char* kGo = "go";
inline constexpr const char* kProgress = "progress";
inline constexpr const char* kInterrupt = "interrupt";
inline constexpr const char* kInterrupted = "interrupted";
inline constexpr const char* kDisagreement = "disagreement";
inline constexpr const char* kDone = "done";

/// A request as the mount's process understands it.
struct RunRequest {
  const kernels::Workload* workload = nullptr;
  /// Files by their paths below the mount.
  kernels::Arguments arguments;
  bool concurrent_host = false;
  std::optional<HostAccess> host_access;
  /// Options of the mount that the caller named all the same, as `mount_options` writes them.
  std::map<std::string, std::string> given;
};

struct RunProgress {
  std::string phase;
  ByteCount total;
  ByteCount done;
};

MountMessage request_of(const kernels::Workload& workload, const RunOptions& options,
                        std::span<const MountedPath> files);
/// \throws Error(invalid_argument) that says what is wrong with it
RunRequest parse_request(const MountMessage& request);

/// Their sizes, as kReady tells them.
MountMessage ready_message(std::span<const Mapping> files);
MountMessage message_of(const RunProgress& progress);
MountMessage message_of(const RunReport& report);
/// A message that is one text.
MountMessage text_message(const char* type, const std::string& text);

// \throws std::runtime_error if the answer is none of that kind
/// The caller's files, with the sizes of a kReady.
std::vector<kernels::RunFile> run_files_of(const MountMessage& answer, std::span<const std::string> paths);
RunProgress progress_of(const MountMessage& answer);
/// All of it but `workload`, `file` and what a check finds.
RunReport report_of(const MountMessage& answer);
std::string text_of(const MountMessage& answer);

}  // namespace aprime::cli
