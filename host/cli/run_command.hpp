#pragma once

#include "host/cli/device_options.hpp"
#include "kernels/workload.hpp"

namespace aprime::cli {

struct RunOptions {
  DeviceChoice device;
  kernels::Arguments arguments;
  bool concurrent_host = false;
  bool verify = false;
};

/// Runs a workload and reports on stdout. Returns the exit status.
/// \throws Error, kernels::InputError, Disagreement, std::runtime_error
int run_command(const kernels::Workload& workload, const RunOptions& options);

}  // namespace aprime::cli
