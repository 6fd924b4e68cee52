#include "aprime/runtime.hpp"

#include <cstdio>
#include <new>

#include <fmt/format.h>

#include "host/coherence/granule_state.hpp"
#include "host/engine/failure.hpp"
#include "host/engine/mapping_state.hpp"
#include "host/engine/runtime_state.hpp"

// The one file that names concrete devices.

namespace aprime {
namespace {

/// Threads of an emulated device. Many more take minutes to start, and nothing that runs on them runs faster.
constexpr unsigned kWorkersMax = 4096;

std::unique_ptr<device::Device> make_device(const DeviceOptions& options, ByteCount frame_bytes) {
  std::string why = "it was asked for";
  DeviceKind kind = options.kind;
  if (kind == DeviceKind::automatic) {
    const std::string no_cuda = device::why_no_cuda();
    kind = no_cuda.empty() ? DeviceKind::cuda : DeviceKind::emulated;
    why = no_cuda.empty() ? "it is the best there is" : "there is no CUDA device: " + no_cuda;
  }
  const auto make = [&]() -> std::unique_ptr<device::Device> {
    switch (kind) {
      case DeviceKind::cuda: return device::make_cuda(options, frame_bytes);
      case DeviceKind::emulated: return device::make_emulated_faulting(options, frame_bytes);
      case DeviceKind::emulated_strict: return device::make_emulated_strict(options, frame_bytes);
      case DeviceKind::automatic: break;
    }
    throw Error(Errc::invalid_argument, "unknown device kind");
  };
  std::unique_ptr<device::Device> made;
  try {
    made = make();
  } catch (const std::bad_alloc&) {
    throw Error(
        Errc::resources,
        fmt::format(
            "DeviceOptions::memory: there is no memory to keep account of {} bytes in granules of {}; "
            "choose less, or larger granules",
            options.memory.value, frame_bytes.value));
  }
  made->set_chosen_because(std::move(why));
  return made;
}

std::shared_ptr<engine::RuntimeState> make_state(const RuntimeOptions& options) {
  if (!GranuleSize::is_valid(options.granule))
    throw Error(Errc::invalid_argument,
                fmt::format("RuntimeOptions::granule: {} is not a power of two from 4096 to 2097152 bytes",
                            options.granule.value));
  if (options.devices.empty() || options.devices.size() > coherence::AgentId::kDevicesMax)
    throw Error(Errc::invalid_argument,
                fmt::format("RuntimeOptions::devices: {} devices; 1 to {} are possible",
                            options.devices.size(), coherence::AgentId::kDevicesMax));
  if (options.dirty_age_max.count() < 0)
    throw Error(Errc::invalid_argument,
                fmt::format("RuntimeOptions::dirty_age_max: {} ms; give a time, or 0 for no flusher",
                            options.dirty_age_max.count()));
  for (const DeviceOptions& d : options.devices)
    if (d.workers > kWorkersMax)
      throw Error(
          Errc::invalid_argument,
          fmt::format("DeviceOptions::workers: {} threads; at most {} are possible", d.workers, kWorkersMax));
  std::vector<std::unique_ptr<device::Device>> devices;
  for (const DeviceOptions& d : options.devices) devices.push_back(make_device(d, options.granule));
  return std::make_shared<engine::RuntimeState>(options, std::move(devices));
}

}  // namespace

Runtime::Runtime() : Runtime(RuntimeOptions{}) {}
Runtime::Runtime(const RuntimeOptions& options) : state_(make_state(options)) {}

Runtime::~Runtime() {
  if (!state_) return;
  if (!state_->is_own_process()) {
    // After fork() there are no threads to end and no memory to free; the child's copy is left alone.
    new std::shared_ptr<engine::RuntimeState>(std::move(state_));
    return;
  }
  std::string path;
  const Status status = state_->close(path);
  if (status.is_ok()) return;
  try {
    std::fprintf(stderr, "aprime: bytes are lost: %s\n",
                 engine::describe(status, path, "copy home at the end").c_str());
  } catch (const std::bad_alloc&) {
    std::fputs("aprime: bytes are lost, and there is no memory to say which and why\n", stderr);
  }
}

engine::RuntimeState& Runtime::used() const {
  state_->require_own_process();
  return *state_;
}

Mapping Runtime::map(const std::string& path, Access access, const MapOptions& options) {
  return Mapping(used().map(path, access, options));
}

Completion Runtime::submit(unsigned device, const std::string& name, const Grid* grid,
                           std::unique_ptr<detail::LaunchClosure> closure,
                           std::vector<LeaseRequest> requests) {
  return used().submit(device, name, grid, std::move(closure), std::move(requests));
}

std::vector<DeviceInfo> Runtime::devices() const { return state_->devices(); }
Stats Runtime::stats() const { return state_->stats(); }
Stats Runtime::stats(unsigned device) const { return state_->stats(device); }

void Runtime::close() {
  std::string path;
  engine::throw_if_failed(used().close(path), path, "copy home at the end");
}

}  // namespace aprime
