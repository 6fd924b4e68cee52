#pragma once

#include "aprime/mount_call.hpp"
#include "aprime/runtime.hpp"
#include "host/cli/device_options.hpp"
#include "host/cli/kept_files.hpp"

namespace aprime::cli {

/// Runs workloads for other processes, with the runtime of a mount. What a run has stored is where the device
/// has it: all programs on the mount see it, and fsync, the flusher or the end of the mount write it.
/// Thread-safe.
class RunService {
 public:
  /// `choice` is what the runtime, which must outlive this, was made of.
  RunService(Runtime& runtime, const DeviceChoice& choice) : runtime_(runtime), choice_(choice) {}

  /// Answers a call; see MountOptions::serve.
  void serve(MountCall& call);

 private:
  void check_options(const std::map<std::string, std::string>& given) const;

  Runtime& runtime_;
  const DeviceChoice choice_;
  KeptFiles kept_;
};

}  // namespace aprime::cli
