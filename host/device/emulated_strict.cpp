#include <algorithm>
#include <exception>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "aprime/detail/pager.hpp"
#include "host/device/demand_region.hpp"
#include "host/device/emulated_device.hpp"
#include "host/device/leased_frames.hpp"
#include "host/device/paging.hpp"

namespace aprime::device {

namespace {

/// All memory is the host's here.
class HostPagingMemory final : public PagingMemory {
 public:
  std::byte* shared(std::size_t bytes) override { return device(bytes); }
  std::byte* device(std::size_t bytes) override {
    os::Mapped memory = os::Mapped::anonymous(bytes, true);
    std::byte* const at = memory.data();
    const sync::Lock lock(mutex_);
    memory_.insert_or_assign(at, std::move(memory));
    return at;
  }
  void free(std::byte* device_memory) noexcept override {
    const sync::Lock lock(mutex_);
    memory_.erase(device_memory);
  }
  Status clear(std::byte* device_memory) noexcept override {
    const sync::Lock lock(mutex_);
    return memory_.find(device_memory)->second.clear();
  }
  Status upload(std::byte* to, std::span<const std::byte> from) noexcept override {
    std::copy(from.begin(), from.end(), to);
    return {};
  }

 private:
  sync::Mutex mutex_{sync::LockRank::frames};
  std::map<std::byte*, os::Mapped> memory_ APRIME_GUARDED_BY(mutex_);
};

class EmulatedStrict final : public EmulatedDevice, public PagingSource {
 public:
  EmulatedStrict(const DeviceOptions& options, ByteCount frame_bytes)
      : EmulatedDevice(options, frame_bytes,
                       {"emulated-strict",
                        "CPU threads that run kernels as CUDA does for us: without page faults; memory that "
                        "a kernel has "
                        "not leased stops it",
                        false}),
        memory_(frame_bytes, frames_.capacity()) {}

  std::unique_ptr<Region> attach(RegionParams params, FaultHandler& handler) override {
    names_.set(params.id, params.path);
    return std::make_unique<DemandRegion>(std::move(params), memory_, frame_bytes_, frames_, *this, handler);
  }

  LaunchResult run(const detail::KernelBody& body, const Grid& grid,
                   std::span<Region* const> on_demand) override {
    if (on_demand.empty()) return EmulatedDevice::run(body, grid);
    return run_on_demand(*paging_, on_demand, [&] { return EmulatedDevice::run(body, grid); });
  }

  std::byte* frame_address(FrameIndex frame) noexcept override { return memory_.address(frame); }

  Status open_lease(Region& region, GranuleRange granules, Right right) noexcept override {
    return static_cast<FramedRegion&>(region).open_lease(granules, right);
  }
  void close_lease(Region& region, GranuleRange granules, Right right) noexcept override {
    static_cast<FramedRegion&>(region).close_lease(granules, right);
  }

 private:
  /// Lanes of the pager, fewer than a warp has: each is a fiber that looks for work.
  static constexpr unsigned kPagerLanes = 4;

  Paging& paging() override {
    if (!paging_) {
      pager_.reset(new Executor(start_workers(1)));
      auto paging =
          std::make_unique<Paging>(paging_memory_, memory_.alias(),
                                   [this](const detail::PagingPort* port) { return run_pager(port); });
      // Once before there is a session: so its fibers are there when there may be no memory for them.
      if (const Status status = run_pager(paging->port()); !status.is_ok())
        throw Error(Errc::resources, status.reason);
      paging_ = std::move(paging);
    }
    return *paging_;
  }
  PagingMemory& paging_memory() noexcept override { return paging_memory_; }

  Status run_pager(const detail::PagingPort* port) noexcept {
    const auto run = [](const void* closure, detail::ThreadCursor& cursor) {
      while (cursor.next()) detail::PagerKernel{}(*static_cast<const detail::PagingPort* const*>(closure));
    };
    try {
      if (pager_->run({&port, run, "pager"}, Grid{{1}, {kPagerLanes}}).completed()) return {};
    } catch (const std::exception&) {
      // No memory to say why it did not complete.
    }
    // Stopped in the middle of something: nobody executes commands any more.
    return {Errc::device_failed, 0, {}, "the pager kernel was stopped"};
  }

  LeasedFrames memory_;
  HostPagingMemory paging_memory_;
  /// Processors for the pager alone. Both are made by the first launch that needs them; that launch and the
  /// others of the device follow one another.
  std::unique_ptr<Executor> pager_;
  std::unique_ptr<Paging> paging_;
};

}  // namespace

std::unique_ptr<Device> make_emulated_strict(const DeviceOptions& options, ByteCount frame_bytes) {
  return std::make_unique<EmulatedStrict>(options, frame_bytes);
}

}  // namespace aprime::device
