#pragma once

#include <string>

#include "aprime/runtime.hpp"
#include "host/device/device.hpp"
#include "host/device/device_fault.hpp"
#include "host/device/executor.hpp"

namespace aprime::device {

/// What both personalities of the emulated device have in common: processors, and words for what stops a
/// kernel.
class EmulatedDevice : public Device {
 public:
  /// Fewer frames than this leave eviction no choice.
  static constexpr std::uint64_t kFramesMin = 16;

  LaunchResult run(const detail::KernelBody& body, const Grid& grid) override;
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
  WildPointerTrap wild_pointers_;
  /// Last: its threads refer to the members before it.
  Executor executor_;
};

/// Does `operation(GranuleRange) -> Status` for a run in one go; if that fails, granule by granule as far as
/// it gets. So it is known exactly which granules were done, whatever `operation` did to a part of the run
/// before it failed. \pre what failed for a run may be done again; what failed for a single granule has
/// changed nothing
template <class Operation>
Progress in_one_go_or_each(GranuleRange run, const Operation& operation) noexcept {
  if (run.empty()) return {GranuleCount{0}, {}};
  Status status = operation(run);
  if (status.is_ok()) return {run.count, {}};
  if (run.count.value == 1) return {GranuleCount{0}, status};
  for (std::uint64_t i = 0; i < run.count.value; ++i) {
    status = operation(GranuleRange{run.first + GranuleCount{i}, GranuleCount{1}});
    if (!status.is_ok()) return {GranuleCount{i}, status};
  }
  return {run.count, {}};
}

}  // namespace aprime::device
