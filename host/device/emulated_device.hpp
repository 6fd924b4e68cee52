#pragma once

#include <string>

#include "aprime/runtime.hpp"
#include "host/device/device.hpp"
#include "host/device/device_fault.hpp"
#include "host/device/executor.hpp"

namespace aprime::device {

/// \throws Error(resources)
Executor start_workers(unsigned workers);

/// What both personalities of the emulated device have in common: processors, and words for what stops a
/// kernel.
class EmulatedDevice : public Device {
 public:
  LaunchResult run(const detail::KernelBody& body, const Grid& grid,
                   std::span<Region* const> on_demand = {}) override;
  void describe(const KernelFault& fault, DeviceFaultStatus& out) const override;

 protected:
  /// What the personality has to say about itself.
  struct Character {
    std::string name;
    std::string description;
    bool hardware_paged;
  };
  /// \throws Error(invalid_argument) frame size or memory; Error(resources) no threads
  EmulatedDevice(const DeviceOptions& options, ByteCount frame_bytes, Character character);

  RegionNames names_;

 private:
  KernelDefectTrap defects_;
  /// Last: its threads refer to the members before it.
  Executor executor_;
};

}  // namespace aprime::device
