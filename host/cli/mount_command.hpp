#pragma once

#include <chrono>
#include <string>

#include "aprime/mount.hpp"
#include "host/cli/device_options.hpp"

namespace aprime::cli {

/// What `aprime mount` is told.
struct MountRequest {
  std::string source;
  std::string mountpoint;
  MountOptions options;
  DeviceChoice device;
  /// Of bytes that only a device has, before they are copied home; none if 0.
  std::chrono::seconds dirty_age{5};
  bool foreground = false;
};

/// Mounts, and serves the mount until it is unmounted or the process is told to end (SIGINT, SIGTERM,
/// SIGHUP): in a background process of its own, whose parent returns once the mount can be used, or in this
/// one. Returns the exit status. \throws Error, std::runtime_error
int mount_command(const MountRequest& request);

/// What `aprime unmount` does. Returns the exit status. \throws Error
int unmount_command(const std::string& mountpoint, Unmount how);

}  // namespace aprime::cli
