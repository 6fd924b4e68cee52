#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "aprime/error.hpp"
#include "aprime/launch.hpp"
#include "host/device/frame_pool.hpp"
#include "host/device/kernel_stop.hpp"
#include "host/os/trap.hpp"
#include "host/sync/mutex.hpp"

// Why the memory of an emulated device stops a kernel: recorded inside the trap handler, put in words
// afterwards.

namespace aprime::device {

enum class FaultReason : std::uint8_t {
  /// The engine could not serve the fault; the status says why.
  refused,
  /// A store to leased memory, all of whose leases are for reading.
  store_under_read_lease,
  /// Device memory that no lease covers.
  outside_lease,
  /// An element of a device_span beyond its end.
  outside_span,
  /// Neither device memory nor anything else that the thread may touch.
  wild_pointer,
  /// Where the next frame of a stack goes that is used up.
  stack,
  /// An integer division that has no result.
  division,
  /// Floating-point arithmetic that the program wants to be told of (feenableexcept).
  floating_point,
};

/// Of a place in a file that has a region. Async-signal-safe, as the next one.
KernelFault fault_in_file(FaultReason reason, RegionId region, ByteOffset at, bool write,
                          Status status = {}) noexcept;
/// Of a place that belongs to no file: for outside_lease its distance in bytes from the start of device
/// memory, for wild_pointer its address, for arithmetic that of the instruction.
KernelFault fault_elsewhere(FaultReason reason, std::uint64_t place, bool write, Status status = {}) noexcept;

/// Ends the kernel whose access trapped, when the handler returns. \pre on_device_thread()
void stop_trapped_kernel(const os::Trap& trap, const KernelFault& fault) noexcept;

/// Paths of a device's regions, for messages. A name outlives its region, until another region gets the
/// number: so a fault can be described after the file was unmapped. Thread-safe.
class RegionNames {
 public:
  void set(RegionId region, const std::string& path);
  std::string get(RegionId region) const;

 private:
  mutable sync::Mutex mutex_{sync::LockRank::frames};
  std::map<RegionId, std::string> paths_ APRIME_GUARDED_BY(mutex_);
};

/// Device::describe() of the emulated devices. The kernel's name is taken from `out`.
void describe_fault(const KernelFault& fault, const RegionNames& names, DeviceFaultStatus& out);

/// While one lives, the calling thread serves a device fault inside a signal handler: a trap is then a defect
/// of ours and must not be taken for the kernel's.
class ServingFault {
 public:
  ServingFault() noexcept;
  ~ServingFault();
  ServingFault(const ServingFault&) = delete;
  ServingFault& operator=(const ServingFault&) = delete;
};

/// Stops a kernel that touches memory which is nobody's, uses up its stack, or divides by zero, instead of
/// letting it end the process.
class KernelDefectTrap final : public os::TrapTarget {
 public:
  Answer on_trap(const os::Trap& trap) noexcept override;
};

}  // namespace aprime::device
