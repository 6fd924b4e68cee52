#include "host/engine/launch_queue.hpp"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <exception>

namespace aprime {

Completion::Completion(std::shared_ptr<detail::CompletionState> state) noexcept : state_(std::move(state)) {}

DeviceFaultStatus Completion::status() const {
  if (!state_) return {};
  const sync::Lock lock(state_->mutex);
  while (!state_->status) state_->changed.wait(state_->mutex);
  return *state_->status;
}

void Completion::wait() const {
  const DeviceFaultStatus s = status();
  if (!s.is_ok()) throw Error(s.code, s.message, s.path, s.system_error, s.offset);
}

bool Completion::done() const noexcept {
  if (!state_) return true;
  const sync::Lock lock(state_->mutex);
  return state_->status.has_value();
}

namespace detail {

std::string readable_name(const char* mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(mangled, nullptr, nullptr, &status),
                                                    std::free);
  std::string name = status == 0 ? text.get() : mangled;
  // The last component says enough: "saxpy", not "my::project::(anonymous namespace)::saxpy".
  const std::size_t arguments = name.find('<');
  const std::size_t colon = name.rfind("::", arguments);
  return colon == std::string::npos ? name : name.substr(colon + 2);
}

}  // namespace detail

namespace engine {

LaunchQueue::LaunchQueue(DeviceSlot& slot) : slot_(slot), thread_([this] { run(); }) {}

LaunchQueue::~LaunchQueue() {
  {
    const sync::Lock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void LaunchQueue::push(Launch launch) {
  {
    const sync::Lock lock(mutex_);
    waiting_.push_back(std::move(launch));
  }
  changed_.notify_all();
}

void LaunchQueue::drain() {
  const sync::Lock lock(mutex_);
  while (running_ || !waiting_.empty()) changed_.wait(mutex_);
}

void LaunchQueue::run() noexcept {
  for (;;) {
    Launch launch;
    {
      const sync::Lock lock(mutex_);
      running_ = false;
      changed_.notify_all();
      while (waiting_.empty() && !stopping_) changed_.wait(mutex_);
      if (waiting_.empty()) return;
      launch = std::move(waiting_.front());
      waiting_.pop_front();
      running_ = true;
    }
    DeviceFaultStatus status = execute(launch);
    // Whoever waits may destroy mappings and runtime next: everything of the launch goes first.
    const std::shared_ptr<detail::CompletionState> completion = std::move(launch.completion);
    launch = Launch{};
    completion->set(std::move(status));
  }
}

DeviceFaultStatus LaunchQueue::execute(Launch& launch) noexcept {
  DeviceFaultStatus status;
  try {
    status = run_on_device(launch);
  } catch (const Error& e) {
    status.code = e.code();
    status.message = e.what();
    status.path = e.path();
    status.offset = e.offset();
    status.system_error = e.system_error();
  } catch (const std::exception& e) {
    status.code = Errc::kernel_failed;
    status.message = launch.name + ": " + e.what();
  } catch (...) {
    status.code = Errc::kernel_failed;
    status.message = launch.name + ": threw something that is no std::exception";
  }
  status.kernel = launch.name;
  return status;
}

/// Where each request's bytes are, and leases that keep them there where that needs any.
struct LaunchQueue::Placement {
  std::vector<detail::LeasedMemory> memory;
  std::optional<DeviceLeases> leases;
  /// What the kernel may fault on, each region once.
  std::vector<device::Region*> on_demand;
};

void LaunchQueue::place(const Launch& launch, Placement& placement) {
  const bool faults_in = slot_.device().info().hardware_paged && launch.grid;
  if (!faults_in) placement.leases.emplace(slot_, launch.requests);
  for (const FileRequest& r : launch.requests) {
    device::Region& region = r.file->region(slot_.number());
    const auto size = static_cast<std::size_t>(r.range.size.value);
    if (r.on_demand) {
      placement.memory.push_back({nullptr, size, region.paged_window(), r.range.first.value});
      if (std::find(placement.on_demand.begin(), placement.on_demand.end(), &region) ==
          placement.on_demand.end())
        placement.on_demand.push_back(&region);
    } else if (faults_in) {
      if (r.right == Right::write) adopt_ahead(slot_, r, launch.requests);
      placement.memory.push_back({region.window() + r.range.first.value, size});
    } else {
      placement.memory.push_back(placement.leases->memory_of(r));
    }
  }
}

DeviceFaultStatus LaunchQueue::run_on_device(Launch& launch) {
  const trace::Range range(slot_.tracer(), trace::Kind::launch, launch.name);
  Placement placement;
  place(launch, placement);
  launch.closure->bind(placement.memory);
  DeviceFaultStatus status;
  if (!launch.grid) {
    slot_.device().run_task(*launch.closure, launch.name);
    return status;
  }
  const device::LaunchResult result =
      slot_.device().run(launch.closure->body(), *launch.grid, placement.on_demand);
  if (result.completed()) return status;
  status.code = Errc::kernel_failed;
  status.message = result.message;
  status.kernel = launch.name;
  if (result.outcome == device::LaunchOutcome::fault) slot_.device().describe(result.fault, status);
  return status;
}

}  // namespace engine
}  // namespace aprime
