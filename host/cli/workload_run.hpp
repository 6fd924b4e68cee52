#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "host/cli/report.hpp"
#include "kernels/workload.hpp"

// What a run of a workload is made of, whether its runtime is this process's own or that of a mount.

namespace aprime::cli {

/// Maps a file of the workload's arguments.
using MapFile = std::function<Mapping(const std::string& path, Access access)>;

/// Maps a file unless its size is not what can be read of it, as of files of /proc and /sys. \throws Error,
/// kernels::InputError
Mapping map_plain_file(Runtime& runtime, const std::string& path, Access access);

/// What `map` returns. The library advises programs: who uses the command is told what else can be done about
/// a file that cannot be opened. `is_only_file`: its contents are wanted, so that creating it would not help.
Mapping map_for_user(const MapFile& map, const std::string& path, Access access, bool is_only_file);

/// Maps the files and refuses what cannot work, before anything changes. \throws Error, kernels::InputError
std::vector<Mapping> prepare_files(const kernels::Workload& workload, const kernels::Arguments& arguments,
                                   bool concurrent_host, const MapFile& map);

/// Runs the workload, with the CPU's traffic if that is wanted, and fills in the report: all of it but
/// `seconds`, `stats` and what a check finds. False if it was interrupted. \throws Error,
/// kernels::InputError, Disagreement
bool compute(const kernels::Workload& workload, const kernels::Arguments& arguments, bool concurrent_host,
             kernels::Session& session, std::span<const Mapping> files, RunReport& report);

/// What a check is given of them.
std::vector<kernels::RunFile> run_files(const kernels::Arguments& arguments, std::span<const Mapping> files);

/// For each file whether the workload stores to it.
std::vector<bool> changed_files(const kernels::Workload& workload);
bool changes_files(const kernels::Workload& workload);
/// The file that a report is about: the one that is changed, if there is one.
const std::string& reported_file(const kernels::Workload& workload, const kernels::Arguments& arguments);

}  // namespace aprime::cli
