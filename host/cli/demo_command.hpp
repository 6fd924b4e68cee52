#pragma once

#include <string>

#include "host/cli/device_options.hpp"

namespace aprime::cli {

/// Shows on one file, which it changes, that a device, a CPU pointer and plain read(2) use the same bytes,
/// and checks each step. Returns the exit status. \throws Error, kernels::InputError, std::runtime_error
int demo_command(const std::string& path, const DeviceChoice& choice);

}  // namespace aprime::cli
