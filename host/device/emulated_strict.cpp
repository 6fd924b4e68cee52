#include <algorithm>
#include <cassert>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "host/device/emulated_device.hpp"
#include "host/device/leased_frames.hpp"

namespace aprime::device {

namespace {

/// A′ of one file in frames. A right is a matter of the directory here: kernels touch what is leased to them,
/// and a lease is opened only after the rights for it were given. So rights move without any work.
class StrictRegion final : public Region {
 public:
  StrictRegion(RegionParams params, LeasedFrames& memory, ByteCount frame_bytes)
      : Region(std::move(params)),
        memory_(memory),
        frames_are_full_(params_.frames_per_granule.value * frame_bytes.value ==
                         params_.granule.bytes().value) {}

  Progress fill(GranuleRange run, HomePort& home) noexcept override {
    return by_contiguous_frames(run, [&](GranuleRange r) {
      const Status status = home.read(params_.granule.offset_of(r.first), bytes_of(r));
      if (status.is_ok()) label(r);
      return status;
    });
  }

  Progress adopt(GranuleRange run) noexcept override {
    return by_contiguous_frames(run, [&](GranuleRange r) {
      std::memset(bytes_of(r).data(), 0, bytes_of(r).size());
      label(r);
      return Status{};
    });
  }

  Progress grant_write(GranuleRange run) noexcept override { return {run.count, {}}; }

  Progress protect(GranuleRange run) noexcept override {
    assert(!any_leased(run, Right::read_write) && "a write lease is open");
    return {run.count, {}};
  }

  Progress release(GranuleRange run) noexcept override {
    assert(!any_leased(run, Right::read) && "a lease is open");
    for (GranuleIndex g = run.first; g < run.end(); ++g.value) {
      memory_.clear_label(frame_of(g), params_.frames_per_granule);
    }
    return {run.count, {}};
  }

  Progress copy_home(GranuleRange run, HomePort& home) noexcept override {
    return by_contiguous_frames(
        run, [&](GranuleRange r) { return home.write(params_.granule.offset_of(r.first), bytes_of(r)); });
  }

  Status read_copy(GranuleIndex g, ByteCount offset, std::span<std::byte> into) noexcept override {
    std::copy_n(bytes_of({g, GranuleCount{1}}).data() + offset.value, into.size(), into.data());
    return {};
  }

  Status write_copy(GranuleIndex g, ByteCount offset, std::span<const std::byte> from) noexcept override {
    assert(!any_leased({g, GranuleCount{1}}, Right::read) && "a kernel could see half of it");
    std::copy_n(from.data(), from.size(), bytes_of({g, GranuleCount{1}}).data() + offset.value);
    return {};
  }

  Status reserve(GranuleCount granules) noexcept override {
    try {
      frames_.reserve(granules.value);
    } catch (const Error& error) {
      return {error.code(), error.system_error(), {}};
    } catch (const std::bad_alloc&) {
      return {Errc::resources, 0, {}};
    }
    return {};
  }

  Status move(GranuleIndex g, FrameIndex to) noexcept override {
    const GranuleRange granule{g, GranuleCount{1}};
    assert(!any_leased(granule, Right::read) && "a kernel has the old address");
    const std::span<std::byte> bytes = bytes_of(granule);
    std::memmove(memory_.bytes(to, bytes.size()).data(), bytes.data(), bytes.size());
    memory_.clear_label(frame_of(g), params_.frames_per_granule);
    memory_.label(to, params_.frames_per_granule, params_.id, params_.granule.offset_of(g));
    return {};
  }

  /// Calls `operation` for one part of the run after the other, each with granules that lie next to one
  /// another in frames as in the file.
  template <class Operation>
  Progress by_contiguous_frames(GranuleRange run, const Operation& operation) noexcept {
    GranuleCount done{0};
    while (done < run.count) {
      const Progress part =
          in_one_go_or_each(contiguous_part({run.first + done, run.end() - (run.first + done)}), operation);
      done.value += part.done.value;
      if (!part.status.is_ok()) return {done, part.status};
    }
    return {done, {}};
  }

  FrameCount frames_of(GranuleCount granules) const noexcept {
    return FrameCount{granules.value * params_.frames_per_granule.value};
  }

 private:
  GranuleRange contiguous_part(GranuleRange run) const noexcept {
    GranuleCount count{1};
    while (frames_are_full_ && count < run.count &&
           frame_of(run.first + count).value == frame_of(run.first).value + frames_of(count).value) {
      ++count.value;
    }
    return {run.first, count};
  }
  /// \pre the granules lie next to one another
  std::span<std::byte> bytes_of(GranuleRange r) const noexcept {
    return memory_.bytes(frame_of(r.first),
                         static_cast<std::size_t>(params_.granule.bytes_of(r.count).value));
  }
  void label(GranuleRange r) noexcept {
    memory_.label(frame_of(r.first), frames_of(r.count), params_.id, params_.granule.offset_of(r.first));
  }
  [[maybe_unused]] bool any_leased(GranuleRange run, Right right) const noexcept {
    for (GranuleIndex g = run.first; g < run.end(); ++g.value) {
      if (memory_.is_leased(frame_of(g), params_.frames_per_granule, right)) return true;
    }
    return false;
  }

  LeasedFrames& memory_;
  /// Granules in neighbouring frames have no gap between them.
  const bool frames_are_full_;
};

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
    return std::make_unique<StrictRegion>(std::move(params), memory_, frame_bytes_);
  }

  std::byte* frame_address(FrameIndex frame) noexcept override { return memory_.address(frame); }

  Status open_lease(Region& region, GranuleRange granules, Right right) noexcept override {
    auto& strict = static_cast<StrictRegion&>(region);
    const Progress opened = strict.by_contiguous_frames(granules, [&](GranuleRange r) {
      return memory_.open(strict.frame_of(r.first), strict.frames_of(r.count), right);
    });
    if (!opened.status.is_ok()) close_lease(region, {granules.first, opened.done}, right);
    return opened.status;
  }

  void close_lease(Region& region, GranuleRange granules, Right right) noexcept override {
    auto& strict = static_cast<StrictRegion&>(region);
    static_cast<void>(strict.by_contiguous_frames(granules, [&](GranuleRange r) {
      memory_.close(strict.frame_of(r.first), strict.frames_of(r.count), right);
      return Status{};
    }));
  }

 private:
  LeasedFrames memory_;
};

}  // namespace

std::unique_ptr<Device> make_emulated_strict(const DeviceOptions& options, ByteCount frame_bytes) {
  return std::make_unique<EmulatedStrict>(options, frame_bytes);
}

}  // namespace aprime::device
