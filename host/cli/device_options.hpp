#pragma once

#include <CLI/CLI.hpp>

#include "aprime/runtime.hpp"
#include "aprime/units.hpp"

namespace aprime::cli {

/// What the commands that use a device have in common.
struct DeviceChoice {
  DeviceKind kind = DeviceKind::automatic;
  ByteCount granule{std::uint64_t{64} << 10};
  ByteCount memory{std::uint64_t{256} << 20};
  DeviceMemoryKind memory_kind = DeviceMemoryKind::device;
  HostAccess host_access = HostAccess::adaptive;
  bool json = false;

  RuntimeOptions runtime_options() const;
};

/// Adds --device, --granule, --device-memory, --device-memory-kind and --host-access.
void add_device_options(CLI::App& command, DeviceChoice& choice);
/// What one option alone cannot tell. \throws CLI::ValidationError
void check_device_options(const DeviceChoice& choice);

}  // namespace aprime::cli
