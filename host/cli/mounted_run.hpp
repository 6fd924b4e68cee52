#pragma once

#include <span>

#include "aprime/mount_call.hpp"
#include "host/cli/run_command.hpp"

namespace aprime::cli {

/// Has the process that serves a mount run a workload on files of it, and reports as for a run of this
/// process; checks, too, are made here, by reading the mount as any program does. Returns the exit status.
/// \throws Error, kernels::InputError, Disagreement, std::runtime_error
int run_on_mount(const kernels::Workload& workload, const RunOptions& options,
                 std::span<const MountedPath> files);

}  // namespace aprime::cli
