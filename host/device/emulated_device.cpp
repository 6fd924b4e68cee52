#include "host/device/emulated_device.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <system_error>
#include <thread>
#include <utility>

namespace aprime::device {

namespace {

/// A kernel that stops at a wild pointer. The wish to be told is the thread's, and threads outlive launches,
/// so it is made again, at the price of a store, by each fiber that begins to run the kernel.
struct GuardedBody {
  const detail::KernelBody& body;
  os::TrapTarget& wild_pointers;

  static void run(const void* closure, detail::ThreadCursor& cursor) {
    const auto* self = static_cast<const GuardedBody*>(closure);
    os::set_thread_trap_target(&self->wild_pointers);
    self->body.run(self->body.closure, cursor);
  }
};

FrameCount frames_for(const DeviceOptions& options, ByteCount frame_bytes) {
  if (!GranuleSize::is_valid(frame_bytes)) {
    throw Error(Errc::invalid_argument,
                fmt::format("a frame of {} bytes: it must be a power of two between 4 KiB and 2 MiB",
                            frame_bytes.value));
  }
  const FrameCount frames{options.memory.value / frame_bytes.value};
  if (frames.value < EmulatedDevice::kFramesMin) {
    throw Error(
        Errc::invalid_argument,
        fmt::format(
            "DeviceOptions::memory: {} bytes are too few for granules of {} bytes; an emulated device "
            "needs at least {} ({} granules)",
            options.memory.value, frame_bytes.value, EmulatedDevice::kFramesMin * frame_bytes.value,
            EmulatedDevice::kFramesMin));
  }
  // Frame numbers are kept in 32 bits, and one value stands for none.
  if (frames.value >= std::numeric_limits<std::uint32_t>::max()) {
    throw Error(
        Errc::invalid_argument,
        fmt::format(
            "DeviceOptions::memory: {} bytes are too many for granules of {} bytes; choose larger ones",
            options.memory.value, frame_bytes.value));
  }
  return frames;
}

unsigned workers_for(const DeviceOptions& options) noexcept {
  return options.workers != 0 ? options.workers : std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace

Executor start_workers(unsigned workers) {
  try {
    return Executor(workers);
  } catch (const std::system_error& error) {
    throw Error(Errc::resources,
                fmt::format("cannot start {} threads for an emulated device: {}", workers, error.what()), {},
                error.code().value());
  }
}

EmulatedDevice::EmulatedDevice(const DeviceOptions& options, ByteCount frame_bytes, Character character)
    : Device(DeviceInfo{.name = std::move(character.name),
                        .description = std::move(character.description),
                        .hardware_paged = character.hardware_paged,
                        .memory = ByteCount{frames_for(options, frame_bytes).value * frame_bytes.value},
                        .workers = workers_for(options)},
             frame_bytes, frames_for(options, frame_bytes)),
      executor_(start_workers(workers_for(options))) {}

LaunchResult EmulatedDevice::run(const detail::KernelBody& body, const Grid& grid,
                                 std::span<Region* const> /*on_demand*/) {
  const GuardedBody guarded{body, wild_pointers_};
  return executor_.run({&guarded, &GuardedBody::run, body.name}, grid);
}

void EmulatedDevice::describe(const KernelFault& fault, DeviceFaultStatus& out) const {
  describe_fault(fault, names_, out);
}

}  // namespace aprime::device
