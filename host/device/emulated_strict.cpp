#include <memory>
#include <utility>

#include "host/device/emulated_device.hpp"
#include "host/device/framed_region.hpp"
#include "host/device/leased_frames.hpp"

namespace aprime::device {

namespace {

class EmulatedStrict final : public EmulatedDevice {
 public:
  EmulatedStrict(const DeviceOptions& options, ByteCount frame_bytes)
      : EmulatedDevice(options, frame_bytes,
                       {"emulated-strict",
                        "CPU threads that run kernels as CUDA does for us: without page faults; memory that "
                        "a kernel has "
                        "not leased stops it",
                        false}),
        memory_(frame_bytes, frames_.capacity()) {}

  std::unique_ptr<Region> attach(RegionParams params, FaultHandler& /*handler*/) override {
    names_.set(params.id, params.path);
    return std::make_unique<FramedRegion>(std::move(params), memory_, frame_bytes_);
  }

  std::byte* frame_address(FrameIndex frame) noexcept override { return memory_.address(frame); }

  Status open_lease(Region& region, GranuleRange granules, Right right) noexcept override {
    return static_cast<FramedRegion&>(region).open_lease(granules, right);
  }
  void close_lease(Region& region, GranuleRange granules, Right right) noexcept override {
    static_cast<FramedRegion&>(region).close_lease(granules, right);
  }

 private:
  LeasedFrames memory_;
};

}  // namespace

std::unique_ptr<Device> make_emulated_strict(const DeviceOptions& options, ByteCount frame_bytes) {
  return std::make_unique<EmulatedStrict>(options, frame_bytes);
}

}  // namespace aprime::device
