#include "host/device/emulated_faulting.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "host/os/userfault.hpp"

namespace aprime::device {

FaultingRegion::FaultingRegion(RegionParams params, FaultHandler& handler, KernelActivity& activity)
    : Region(std::move(params)), handler_(handler), activity_(activity), granules_(params_.granules.value) {
  to_protect_.reserve(params_.granules);
}

FaultingRegion::Serving::Serving(FaultingRegion& region, std::byte* window, std::size_t size)
    : traps_(region.serve(window, size)), before_kernels_(region.activity_, region) {}

os::TrapRegistration FaultingRegion::serve(std::byte* window, std::size_t size) {
  window_ = window;
  window_bytes_ = size;
  return {window, size, *this};
}

Progress FaultingRegion::protect(GranuleRange run) noexcept {
  const bool can_wait = activity_.while_none_runs([&] {
    to_protect_.mark(run);
    any_to_protect_.store(true);
  });
  return can_wait ? Progress{run.count, {}} : take_write(run);
}

Status FaultingRegion::before_kernels() noexcept {
  if (!any_to_protect_.load()) return {};
  GranuleRange run{};
  Status status;
  const auto take = [&] {
    if (run.empty()) return;
    const Progress p = take_write(run);
    to_protect_.mark({run.first + p.done, run.count - p.done});
    if (status.is_ok()) status = p.status;
  };
  to_protect_.take_each([&](GranuleIndex g) {
    if (g != run.end()) {
      take();
      run = {g, GranuleCount{0}};
    }
    run.count.value += 1;
  });
  take();
  // Not before: see `hold_off_from_marked`.
  any_to_protect_.store(!status.is_ok());
  return status;
}

Progress FaultingRegion::grant_write(GranuleRange run) noexcept {
  const std::shared_lock held = hold_off_from_marked();
  const Progress p = to_protect_.all_marked(run) ? Progress{run.count, {}} : give_write(run);
  to_protect_.unmark({run.first, p.done});
  return p;
}

Progress FaultingRegion::release(GranuleRange run) noexcept {
  const std::shared_lock held = hold_off_from_marked();
  const Progress p = take_all(run);
  to_protect_.unmark({run.first, p.done});
  return p;
}

Status FaultingRegion::write_copy(GranuleIndex g, ByteCount offset,
                                  std::span<const std::byte> from) noexcept {
  const GranuleRange granule{g, GranuleCount{1}};
  if (const std::shared_lock held = hold_off_from_marked(); to_protect_.any_marked(granule)) {
    const Progress p = take_write(granule);
    if (!p.status.is_ok()) return p.status;
    to_protect_.unmark(granule);
  }
  return replace(g, offset, from);
}

detail::PagedWindow FaultingRegion::paged_window() noexcept {
  return {.base = window_,
          .region = params_.id,
          .log2_granule = static_cast<std::uint8_t>(std::countr_zero(params_.granule.bytes().value))};
}

Status FaultingRegion::reserve(GranuleCount granules) noexcept {
  if (granules.value <= granules_.load(std::memory_order_relaxed)) return {};
  if (params_.granule.bytes_of(granules).value > window_bytes_) return {Errc::resources, 0, {}};
  Status status = reserve_frames(granules);
  if (status.is_ok()) status = or_status([&] { to_protect_.reserve(granules); });
  if (!status.is_ok()) return status;
  granules_.store(granules.value, std::memory_order_release);
  return {};
}

Status FaultingRegion::move(GranuleRange /*row*/, FrameIndex /*to*/) noexcept {
  return {Errc::invalid_argument, 0, {}};
}

os::TrapTarget::Answer FaultingRegion::on_trap(const os::Trap& trap) noexcept {
  const ByteOffset at{static_cast<std::uint64_t>(trap.address - window_)};
  const GranuleIndex granule = params_.granule.index_of(at);
  Status status{Errc::out_of_range, 0, at};
  if (granule.value < granules_.load(std::memory_order_acquire)) {
    const ServingFault serving;
    status = handler_.on_device_fault(*this, granule, trap.write);
  }
  if (status.is_ok()) return Answer::resolved;
  if (!on_device_thread()) return Answer::bus_error;
  stop_trapped_kernel(trap, fault_in_file(FaultReason::refused, params_.id, at, trap.write, status));
  return Answer::resolved;
}

namespace {

class EmulatedFaulting final : public EmulatedDevice {
 public:
  /// `obstacle`: why userfaultfd is not used; empty if it is.
  EmulatedFaulting(const DeviceOptions& options, ByteCount frame_bytes, const std::string& obstacle)
      : EmulatedDevice(options, frame_bytes, {"emulated", describe_trapping(obstacle), true}),
        with_userfaultfd_(obstacle.empty()),
        staging_(staging_buffers(info_.workers)) {}

  std::unique_ptr<Region> attach(RegionParams params, FaultHandler& handler) override {
    names_.set(params.id, params.path);
    return with_userfaultfd_ ? make_userfault_region(std::move(params), handler, activity_, staging_)
                             : make_protected_region(std::move(params), handler, activity_);
  }
  LaunchResult run(const detail::KernelBody& body, const Grid& grid,
                   std::span<Region* const> on_demand) override {
    const KernelActivity::Running running(activity_);
    return EmulatedDevice::run(body, grid, on_demand);
  }
  void run_task(detail::LaunchClosure& task, const std::string& name) override {
    const KernelActivity::Running running(activity_);
    EmulatedDevice::run_task(task, name);
  }
  /// Kernels fault in what they touch.
  Status open_lease(Region& /*region*/, GranuleRange /*granules*/, Right /*right*/) noexcept override {
    return {};
  }
  void close_lease(Region& /*region*/, GranuleRange /*granules*/, Right /*right*/) noexcept override {}

 private:
  static std::string describe_trapping(const std::string& obstacle) {
    const std::string what =
        "CPU threads that run kernels, with page faults as of a GPU that can retry them; ";
    if (obstacle.empty()) return what + "device memory traps by userfaultfd";
    return what +
           "device memory traps by mprotect, which is slower, because userfaultfd is not used: " + obstacle;
  }
  /// One for each device thread, which may fault at any time, and some for the host's own work on the device.
  static unsigned staging_buffers(unsigned workers) noexcept {
    constexpr unsigned for_host = 4;
    return std::min(workers, StagingPool::kBuffersMax - for_host) + for_host;
  }

  const bool with_userfaultfd_;
  StagingPool staging_;
  KernelActivity activity_;
};

}  // namespace

std::unique_ptr<Device> make_emulated_faulting(const DeviceOptions& options, ByteCount frame_bytes) {
  const std::string obstacle = options.without_userfaultfd ? "the options ask for a device without it"
                                                           : os::UserfaultMemory::why_unavailable();
  return std::make_unique<EmulatedFaulting>(options, frame_bytes, obstacle);
}

}  // namespace aprime::device
