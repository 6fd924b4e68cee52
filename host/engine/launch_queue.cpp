#include "host/engine/launch_queue.hpp"

#include <cxxabi.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <new>
#include <string_view>
#include <utility>

#include "host/engine/failure.hpp"
#include "host/os/quiet_thread.hpp"

namespace aprime {

Completion::Completion(std::shared_ptr<detail::CompletionState> state) noexcept : state_(std::move(state)) {}

DeviceFaultStatus Completion::status() const {
  if (!state_) return {};
  const sync::Lock lock(state_->mutex);
  while (!state_->status) {
    if (getpid() != state_->process) {
      DeviceFaultStatus in_child;
      in_child.code = Errc::invalid_argument;
      in_child.message = engine::kInChildProcess;
      return in_child;
    }
    state_->changed.wait(state_->mutex);
  }
  return *state_->status;
}

void Completion::wait() const {
  const DeviceFaultStatus s = status();
  if (s.is_ok()) return;
  throw Error(s.code, s.message.empty() ? "a launch: out of memory" : s.message, s.path, s.system_error,
              s.offset);
}

bool Completion::done() const noexcept {
  if (!state_) return true;
  const sync::Lock lock(state_->mutex);
  return state_->status.has_value();
}

namespace detail {
namespace {

/// Where the last component of a demangled name begins. What is between brackets, as the parameters of a
/// function that a type belongs to, has components of its own.
std::size_t last_component(std::string_view name) {
  constexpr std::string_view kOpening = "<({[", kClosing = ">)}]";
  std::size_t begin = 0, depth = 0;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (kOpening.find(name[i]) != std::string_view::npos) ++depth;
    if (kClosing.find(name[i]) != std::string_view::npos && depth > 0) --depth;
    if (depth == 0 && name.substr(i, 2) == "::") begin = i + 2;
  }
  return begin;
}

/// The last component says enough: "saxpy", not "my::project::(anonymous namespace)::saxpy". A lambda has no
/// name, and is known by the function it is in.
std::string short_name(std::string_view name) {
  const std::size_t begin = last_component(name);
  const std::string_view last = name.substr(begin);
  const std::string outer = begin == 0 ? "" : short_name(name.substr(0, begin - 2));
  // Compilers have two ways to number lambdas.
  if (last.starts_with("{lambda") || last.starts_with("$_")) {
    if (outer.starts_with("lambda in ")) return outer;
    const std::string function = outer.substr(0, outer.find('('));
    return function.empty() ? "lambda" : "lambda in " + function;
  }
  if (last.starts_with("operator()")) return outer;
  const std::size_t bracket = last.find_first_of("(<");
  const bool is_pointer = bracket != std::string_view::npos && last.substr(bracket).starts_with("(*)");
  return is_pointer ? "function pointer" : std::string(last);
}

}  // namespace

std::string readable_name(const char* mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(mangled, nullptr, nullptr, &status),
                                                    std::free);
  return short_name(status == 0 ? text.get() : mangled);
}

}  // namespace detail

namespace engine {

LaunchQueue::LaunchQueue(DeviceSlot& slot) : slot_(slot), thread_(os::start_quiet_thread([this] { run(); })) {
  if (slot.device().info().hardware_paged) return;
  try {
    placer_ = os::start_quiet_thread([this] { place_ahead(); });
  } catch (...) {
    stop();
    throw;
  }
}

LaunchQueue::~LaunchQueue() { stop(); }

void LaunchQueue::stop() noexcept {
  {
    const sync::Lock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  if (placer_.joinable()) placer_.join();
}

void LaunchQueue::push(Launch launch) {
  {
    const sync::Lock lock(mutex_);
    waiting_.push_back({std::move(launch), nullptr});
    ++pushed_;
  }
  changed_.notify_all();
}

void LaunchQueue::drain() {
  const sync::Lock lock(mutex_);
  for (const std::uint64_t last = pushed_; ended_ < last;) changed_.wait(mutex_);
}

void LaunchQueue::run() noexcept {
  for (;;) {
    Waiting next;
    {
      const sync::Lock lock(mutex_);
      changed_.notify_all();
      while (placing_ || (waiting_.empty() && !stopping_)) changed_.wait(mutex_);
      if (waiting_.empty()) return;
      next = std::move(waiting_.front());
      waiting_.pop_front();
    }
    DeviceFaultStatus status = execute(next);
    // Whoever waits may destroy mappings and runtime next: everything of the launch goes first.
    const std::shared_ptr<detail::CompletionState> completion = std::move(next.launch.completion);
    next.launch = Launch{};
    completion->set(std::move(status));
    const sync::Lock lock(mutex_);
    ++ended_;
  }
}

bool LaunchQueue::is_placed_by_leases(const Launch& launch) const noexcept {
  return !slot_.device().info().hardware_paged &&
         std::none_of(launch.requests.begin(), launch.requests.end(),
                      [](const FileRequest& r) { return r.on_demand; });
}

bool LaunchQueue::may_place_ahead() const noexcept {
  return running_leases_ && !waiting_.empty() && is_placed_by_leases(waiting_.front().launch);
}

void LaunchQueue::place_ahead() noexcept {
  for (;;) {
    Waiting* next = nullptr;
    std::vector<LeasedRange> running;
    {
      const sync::Lock lock(mutex_);
      if (std::exchange(placing_, false)) changed_.notify_all();
      while (!may_place_ahead() && !(stopping_ && waiting_.empty())) changed_.wait(mutex_);
      if (waiting_.empty()) return;
      next = &waiting_.front();
      // Once for each running launch: what cannot be had now cannot be had before it ends.
      running = std::move(*running_leases_);
      running_leases_.reset();
      placing_ = true;
    }
    next->leases = DeviceLeases::beside(running, slot_, next->launch.requests);
  }
}

/// Tells the placer, for a scope, that a launch runs and what it holds.
class LaunchQueue::Announcement {
 public:
  Announcement(LaunchQueue& queue, const Launch& launch, const DeviceLeases* leases) : queue_(queue) {
    if (leases == nullptr || !queue.is_placed_by_leases(launch)) return;
    std::vector<LeasedRange> ranges = leases->ranges();
    {
      const sync::Lock lock(queue.mutex_);
      queue.running_leases_ = std::move(ranges);
    }
    queue.changed_.notify_all();
  }
  ~Announcement() {
    const sync::Lock lock(queue_.mutex_);
    queue_.running_leases_.reset();
  }
  Announcement(const Announcement&) = delete;
  Announcement& operator=(const Announcement&) = delete;

 private:
  LaunchQueue& queue_;
};

DeviceFaultStatus LaunchQueue::execute(Waiting& next) noexcept {
  DeviceFaultStatus status;
  try {
    status = run_and_tell(next);
  } catch (const std::bad_alloc&) {
    // Not even for the words was there memory.
    status.code = Errc::resources;
    status.system_error = ENOMEM;
  }
  status.kernel = std::move(next.launch.name);
  return status;
}

DeviceFaultStatus LaunchQueue::run_and_tell(Waiting& next) {
  const Launch& launch = next.launch;
  DeviceFaultStatus status;
  try {
    status = run_on_device(next);
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
  return status;
}

/// Where each request's bytes are, and leases that keep them there where that needs any.
struct LaunchQueue::Placement {
  std::vector<detail::LeasedMemory> memory;
  std::unique_ptr<DeviceLeases> leases;
  /// What the kernel may fault on, each region once.
  std::vector<device::Region*> on_demand;
};

/// No fault on it could be served.
void LaunchQueue::require_room_for_a_granule(const FileRequest& request) {
  const std::uint64_t granule = request.file->granule().bytes().value;
  const std::uint64_t memory = slot_.device().frames().capacity().value * slot_.device().frame_bytes().value;
  if (granule <= memory) return;
  throw Error(
      Errc::device_memory,
      fmt::format("{}: its granule of {} bytes is larger than the device's memory, which has {}; map it "
                  "with a smaller granule or give the device more memory (DeviceOptions::memory, "
                  "--device-memory)",
                  request.file->path(), granule, memory),
      request.file->path());
}

void LaunchQueue::place(Waiting& next, Placement& placement) {
  const Launch& launch = next.launch;
  const bool faults_in = slot_.device().info().hardware_paged && launch.grid;
  placement.leases = std::move(next.leases);
  if (!placement.leases)
    for (const FileRequest& r : launch.requests)
      if (r.file->hides_new_size(r.range))
        throw_if_failed(r.file->take_in_size(), r.file->path(), "use what it has gained");
  if (!faults_in) {
    if (!placement.leases) placement.leases = std::make_unique<DeviceLeases>(slot_, launch.requests);
    placement.leases->open();
  }
  std::vector<detail::PagedWindow> windows;
  for (const FileRequest& r : launch.requests) {
    device::Region& region = r.file->region(slot_.number());
    const auto size = static_cast<std::size_t>(r.range.size.value);
    if (r.on_demand || faults_in) require_room_for_a_granule(r);
    if (r.on_demand) {
      const auto known = std::find(placement.on_demand.begin(), placement.on_demand.end(), &region);
      const auto n = static_cast<std::size_t>(known - placement.on_demand.begin());
      // Asked for once: a second window may be another, and end the first.
      if (known == placement.on_demand.end()) {
        placement.on_demand.push_back(&region);
        windows.push_back(region.paged_window());
      }
      placement.memory.push_back({nullptr, size, windows[n], r.range.first.value});
    } else if (faults_in) {
      if (r.right == Right::write) adopt_ahead(slot_, r, launch.requests);
      placement.memory.push_back({region.window() + r.range.first.value, size});
    } else {
      placement.memory.push_back(placement.leases->memory_of(r));
    }
  }
}

DeviceFaultStatus LaunchQueue::run_on_device(Waiting& next) {
  Launch& launch = next.launch;
  const trace::Range range(slot_.tracer(), trace::Kind::launch, launch.name);
  Placement placement;
  place(next, placement);
  launch.closure->bind(placement.memory);
  const Announcement announcement(*this, launch, placement.leases.get());
  DeviceFaultStatus status;
  if (!launch.grid) {
    slot_.device().run_task(*launch.closure, launch.name);
    return status;
  }
  const device::LaunchResult result =
      slot_.device().run(launch.closure->body(), *launch.grid, placement.on_demand);
  if (result.completed()) return status;
  status.code =
      result.outcome == device::LaunchOutcome::out_of_memory ? Errc::resources : Errc::kernel_failed;
  status.message = result.message;
  status.kernel = launch.name;
  if (result.outcome == device::LaunchOutcome::fault) slot_.device().describe(result.fault, status);
  return status;
}

}  // namespace engine
}  // namespace aprime
