#include "host/device/emulated_device.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>
#include <thread>
#include <utility>

namespace aprime::device {

namespace {

/// A kernel that stops at a wild pointer and the like. The wish to be told is the thread's, and threads
/// outlive launches, so it is made again, at the price of a store, by each fiber that begins to run the
/// kernel.
struct GuardedBody {
  const detail::KernelBody& body;
  os::TrapTarget& defects;

  static void run(const void* closure, detail::ThreadCursor& cursor) {
    const auto* self = static_cast<const GuardedBody*>(closure);
    os::set_thread_trap_target(&self->defects);
    self->body.run(self->body.closure, cursor);
  }
};

unsigned workers_for(const DeviceOptions& options) noexcept {
  return options.workers != 0 ? options.workers : std::max(1u, std::thread::hardware_concurrency());
}

/// Frames are taken as they are used, but what is kept about each is there from the start; and a device that
/// takes more than the machine has ends somebody.
FrameCount frames_for(const DeviceOptions& options, ByteCount frame_bytes) {
  const ByteCount machine{static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                          static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))};
  if (options.memory > machine) {
    throw Error(
        Errc::invalid_argument,
        fmt::format("DeviceOptions::memory: {} bytes are more than the {} bytes of this machine's memory, "
                    "of which an emulated device takes its own",
                    options.memory.value, machine.value));
  }
  return frames_in_budget(options, frame_bytes);
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
  if (body.run == nullptr) {
    throw Error(Errc::invalid_argument,
                fmt::format("kernel {}: only nvcc has compiled it, so it runs on a CUDA device only; let a "
                            "plain C++ compiler compile the file that launches it, and name it in a .cu file",
                            body.name));
  }
  const GuardedBody guarded{body, defects_};
  return executor_.run({&guarded, &GuardedBody::run, body.name, {}}, grid);
}

void EmulatedDevice::describe(const KernelFault& fault, DeviceFaultStatus& out) const {
  describe_fault(fault, names_, out);
}

}  // namespace aprime::device
