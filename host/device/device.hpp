#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>

#include "aprime/access.hpp"
#include "aprime/error.hpp"
#include "aprime/launch.hpp"
#include "aprime/runtime.hpp"
#include "aprime/units.hpp"
#include "host/device/executor.hpp"
#include "host/device/frame_pool.hpp"
#include "host/device/progress.hpp"
#include "host/os/memory.hpp"

namespace aprime::device {

using aprime::detail::KernelBody;

/// The way to A: the backing file, as a device needs it. Implemented by the engine. Thread-safe.
class HomePort {
 public:
  /// Reads from home; bytes beyond the end of the file are zeros. Valid answers: ok; io.
  virtual Status read(ByteOffset at, std::span<std::byte> into) noexcept = 0;
  /// Writes to home what lies below the end of the file. Valid answers: ok; io; no_space.
  virtual Status write(ByteOffset at, std::span<const std::byte> from) noexcept = 0;
  /// The same for one of several threads that write different parts at the same time: so that none waits for
  /// another. May allocate.
  virtual Status store(ByteOffset at, std::span<const std::byte> from) noexcept { return write(at, from); }
  /// Home as memory for the *kernel* to copy from (UFFDIO_COPY), starting at byte 0 of the file. Our own
  /// loads there could SIGBUS. May be shorter than the file, or empty: then use `read`. The last page's bytes
  /// beyond the end of the file are zeros.
  virtual std::span<const std::byte> alias() noexcept = 0;

 protected:
  ~HomePort() = default;
};

class Region;

/// Told by a hardware-paged device that one of its threads touched a granule without the right. Implemented
/// by the engine. Called on the faulting thread, inside a signal handler: allocates nothing.
class FaultHandler {
 public:
  /// Valid answers: ok (the right was given; the access is tried again, and may fault again if the right was
  /// taken away meanwhile); out_of_range (beyond the end of the file); access_denied (a store where the file
  /// is mapped for reading); io; no_space; device_memory.
  virtual Status on_device_fault(Region& region, GranuleIndex granule, bool write) noexcept = 0;

 protected:
  ~FaultHandler() = default;
};

/// What a device must know to hold A′ of one file.
struct RegionParams {
  RegionId id;
  GranuleSize granule;
  /// Frames that one granule takes (a power of two).
  FrameCount frames_per_granule;
  /// For messages.
  std::string path;
  /// Granules that the region must be able to hold at first; `Region::reserve` makes room for more.
  GranuleCount granules;
};

/// Spreads the cost of a system call over enough bytes. What a fault brings along is no more than this.
inline constexpr ByteCount kCopiedAtOnceMin{std::uint64_t{2} << 20};

/// How long threads of a running kernel are asked to let go of what they use.
enum class Asking : std::uint8_t {
  not_at_all,       ///< they keep what they have
  once,             ///< those that have it pinned are not waited for
  for_a_moment,     ///< some milliseconds
  until_they_have,  ///< or the kernel is taken for one that never will
};

/// A′ of one file on one device: copies and rights, granule by granule.
///
/// The engine decides what to do and in which order, holds the granule's transaction for each call, and owns
/// the assignment of frames: `set_frame` comes before `fill` and `adopt`, `clear_frame` after `release`. A
/// region only moves bytes and rights. Operations take runs so that they can be done in one go. All are
/// `noexcept`, allocate nothing, and may be called by many threads at once for different granules; a call may
/// be on a thread that is inside a fault of this or another device.
class Region {
 public:
  virtual ~Region() = default;

  /// Copies home into the granules' frames and lets the device read them. The granules had no right and have
  /// frames. Valid answers: ok; io; out_of_range; resources.
  virtual Progress fill(GranuleRange run, HomePort& home) noexcept = 0;
  /// Zeroes the granules' frames and lets the device store. Valid answers: ok; resources.
  virtual Progress adopt(GranuleRange run) noexcept = 0;
  /// Lets the device store to granules that it may read. Valid answers: ok; resources.
  virtual Progress grant_write(GranuleRange run) noexcept = 0;
  /// Takes the write right, keeping the read right. When it returns no device thread can still store, and all
  /// stores made are visible to `copy_home` and `read_copy`. Valid answers: ok; resources (the right was not
  /// taken).
  virtual Progress protect(GranuleRange run) noexcept = 0;
  /// Takes every right and forgets the bytes. When it returns no device thread can still load. Valid answers:
  /// ok; resources (nothing was taken).
  virtual Progress release(GranuleRange run) noexcept = 0;
  /// The same two for callers that do not wait until device threads let go: where they have to, the answer is
  /// resources with EAGAIN, and of the right nothing is known but that they have no more than before.
  virtual Progress try_protect(GranuleRange run, Asking) noexcept { return protect(run); }
  virtual Progress try_release(GranuleRange run, Asking) noexcept { return release(run); }
  /// How many bytes `fill` and `copy_home` should be given at once where there are that many: enough to work
  /// at full speed. Nobody else gets at a granule of the run meanwhile, so no more than take some
  /// milliseconds. A lease of more is filled in two halves of that at a time.
  virtual ByteCount copied_at_once() const noexcept { return kCopiedAtOnceMin; }
  /// Copies protected granules to home. Valid answers: ok; io; no_space.
  virtual Progress copy_home(GranuleRange run, HomePort& home) noexcept = 0;
  /// Reads bytes of a protected granule's copy, from `offset` bytes into it.
  virtual Status read_copy(GranuleIndex g, ByteCount offset, std::span<std::byte> into) noexcept = 0;
  /// Replaces bytes of a protected granule's copy so that a device thread sees all of them or none (it may
  /// fault meanwhile and wait for the granule). On failure the copy is as it was. Valid answers: ok;
  /// resources.
  virtual Status write_copy(GranuleIndex g, ByteCount offset, std::span<const std::byte> from) noexcept = 0;

  /// Gives back the rights that the directory says the device has (`write`: both, else reading only) after a
  /// fault that should not have happened, because the hardware had fewer (over-protection). Nothing to do
  /// where that cannot be. Valid answers: ok; resources.
  virtual Status restore(GranuleRange, bool /*write*/) noexcept { return {}; }

  /// How often rights were taken from more granules than asked for, because memory areas ran short.
  virtual std::uint64_t over_protections() const noexcept { return 0; }

  /// Hardware-paged: the device address of byte 0 of the file; nullptr on a software-paged device.
  virtual std::byte* window() noexcept { return nullptr; }
  /// What a `device_span` needs to reach all that the region has room for now. Valid until the next call, and
  /// while a kernel runs that was given it. Called by one thread at a time, while no kernel runs that was
  /// given it. \throws Error(resources)
  virtual detail::PagedWindow paged_window() = 0;
  /// Makes room for `granules` granules; addresses stay. Valid answers: ok; resources.
  virtual Status reserve(GranuleCount granules) noexcept = 0;

  /// Moves the bytes of clean or dirty granules, which lie in a row, to frames that do from `to` on, rights
  /// and all (defragmentation for leases). Software-paged only; the engine calls `set_frame` after it. Valid
  /// answers: ok; resources (all are where they were).
  virtual Status move(GranuleRange row, FrameIndex to) noexcept = 0;

  const RegionParams& params() const noexcept { return params_; }

  /// First frame of the granule. \pre has_frame(g)
  FrameIndex frame_of(GranuleIndex g) const noexcept {
    return FrameIndex{frames_[g.value].load(std::memory_order_relaxed) - 1u};
  }
  /// The longest beginning of the run whose granules lie one behind the other in device memory as well.
  /// \pre each has a frame
  GranuleRange in_a_row(GranuleRange run) const noexcept {
    const std::uint64_t first = frame_of(run.first).value;
    const std::uint64_t step = params_.frames_per_granule.value;
    std::uint64_t count = 1;
    while (count < run.count.value &&
           frame_of(run.first + GranuleCount{count}).value == first + count * step) {
      ++count;
    }
    return {run.first, GranuleCount{count}};
  }
  /// Calls `fn(FrameIndex, FrameCount)` for the frames of the run, all that lie in a row in one go.
  /// \pre likewise
  template <class Fn>
  void for_each_row(GranuleRange run, const Fn& fn) const {
    while (!run.empty()) {
      const GranuleRange row = in_a_row(run);
      fn(frame_of(row.first), FrameCount{row.count.value * params_.frames_per_granule.value});
      run = {row.end(), run.end() - row.end()};
    }
  }
  bool has_frame(GranuleIndex g) const noexcept {
    return frames_[g.value].load(std::memory_order_relaxed) != 0;
  }
  void set_frame(GranuleIndex g, FrameIndex f) noexcept {
    frames_[g.value].store(static_cast<std::uint32_t>(f.value + 1), std::memory_order_relaxed);
  }
  void clear_frame(GranuleIndex g) noexcept { frames_[g.value].store(0, std::memory_order_relaxed); }

 protected:
  explicit Region(RegionParams params) : params_(std::move(params)) {
    frames_.reserve(params_.granules.value);
  }
  /// Makes room for the frame numbers of `granules` granules. Valid answers: ok; resources.
  Status reserve_frames(GranuleCount granules) noexcept {
    return or_status([&] { frames_.reserve(granules.value); });
  }
  /// Calls `reserve()`, which throws where there is no memory. Valid answers: ok; resources.
  template <class Reserve>
  static Status or_status(const Reserve& reserve) noexcept {
    try {
      reserve();
    } catch (const Error& error) {
      return {error.code(), error.system_error(), {}};
    } catch (const std::bad_alloc&) {
      return {Errc::resources, 0, {}};
    }
    return {};
  }

  RegionParams params_;
  /// First frame plus one, 0 = none. Written under the granule's transaction, which orders the relaxed
  /// accesses.
  os::GrowingTable<std::atomic<std::uint32_t>> frames_;
};

/// Memory and threads that run kernels. Thread-safe.
class Device {
 public:
  virtual ~Device() = default;

  const DeviceInfo& info() const noexcept { return info_; }
  /// To be called before the device is shared.
  void set_chosen_because(std::string why) { info_.chosen_because = std::move(why); }
  FramePool& frames() noexcept { return frames_; }
  ByteCount frame_bytes() const noexcept { return frame_bytes_; }

  /// Begins to hold granules of a file. The handler must outlive the region. \throws Error(resources)
  virtual std::unique_ptr<Region> attach(RegionParams params, FaultHandler& handler) = 0;

  /// Runs a grid to its end on the device, which may touch the regions `on_demand` through their
  /// `paged_window`s. \throws Error(invalid_argument) if the kernel was not compiled for this kind of device;
  /// Error(resources | device_failed); what `Executor::run` throws for a grid that cannot be launched
  virtual LaunchResult run(const detail::KernelBody& body, const Grid& grid,
                           std::span<Region* const> on_demand = {}) = 0;
  /// Runs a task to its end. \throws Error(invalid_argument) likewise; what the task throws
  virtual void run_task(detail::LaunchClosure& task, const std::string& /*name*/) { task.run_task(); }

  /// Software-paged: the device address of a frame; contiguous frames have contiguous addresses. nullptr on a
  /// hardware-paged device.
  virtual std::byte* frame_address(FrameIndex) noexcept { return nullptr; }
  /// Software-paged: lets kernels touch a run of frames for the time of a lease, and stops them again.
  /// `region` and `first` granule name the run in messages. Hardware-paged: nothing to do. Valid answers: ok;
  /// resources.
  virtual Status open_lease(Region& region, GranuleRange granules, Right right) noexcept = 0;
  virtual void close_lease(Region& region, GranuleRange granules, Right right) noexcept = 0;

  /// In words, for a fault that stopped a kernel (LaunchResult's fault): file, offset, right. Fills code,
  /// path, offset, was_write and message of the status.
  virtual void describe(const KernelFault& fault, DeviceFaultStatus& out) const = 0;

 protected:
  Device(DeviceInfo info, ByteCount frame_bytes, FrameCount frames)
      : info_(std::move(info)), frame_bytes_(frame_bytes), frames_(frames) {}

  DeviceInfo info_;
  ByteCount frame_bytes_;
  FramePool frames_;
};

/// Fewer frames than this leave eviction no choice.
inline constexpr std::uint64_t kFramesMin = 16;
/// How many frames the memory of the options holds. \throws Error(invalid_argument) that names the option
FrameCount frames_in_budget(const DeviceOptions& options, ByteCount frame_bytes);

/// The emulated device in its hardware-paged personality ("faulting"). \throws Error(resources |
/// invalid_argument)
std::unique_ptr<Device> make_emulated_faulting(const DeviceOptions& options, ByteCount frame_bytes);
/// The emulated device in its software-paged personality ("strict"), a model of CUDA. \throws likewise
std::unique_ptr<Device> make_emulated_strict(const DeviceOptions& options, ByteCount frame_bytes);
/// Why there can be no CUDA device here, in words; empty if there can.
std::string why_no_cuda();
/// The first GPU. \throws Error(resources) as `why_no_cuda` says; Error(device_memory) if the GPU has less
/// memory free than is asked for; Error(invalid_argument | device_failed)
std::unique_ptr<Device> make_cuda(const DeviceOptions& options, ByteCount frame_bytes);

}  // namespace aprime::device
