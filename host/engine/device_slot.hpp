#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "aprime/error.hpp"
#include "host/coherence/granule_state.hpp"
#include "host/device/device.hpp"
#include "host/engine/counters.hpp"
#include "host/trace/trace.hpp"

namespace aprime::engine {

class CoherentFile;

/// A device in a runtime: its place among the agents, its counters, and which file each of its regions
/// belongs to, so that a full frame pool can find the owner of a frame.
class DeviceSlot {
  struct Entry {
    std::atomic<bool> is_taken{false};
    std::atomic<CoherentFile*> file{nullptr};
    std::atomic<unsigned> users{0};
  };

 public:
  static constexpr std::size_t kRegionsMax = 4096;

  DeviceSlot(unsigned number, std::unique_ptr<device::Device> device, const trace::Tracer& tracer)
      : number_(number),
        device_(std::move(device)),
        tracer_(tracer),
        resident_(tracer, name_of_counter("resident"), "bytes of device memory in use"),
        dirty_(tracer, name_of_counter("dirty"), "bytes that exist only on the device"),
        regions_(std::make_unique<std::array<Entry, kRegionsMax>>()) {}

  unsigned number() const noexcept { return number_; }
  coherence::AgentId agent() const noexcept { return coherence::AgentId::device(number_); }
  device::Device& device() noexcept { return *device_; }
  Counters& counters() noexcept { return counters_; }
  const trace::Tracer& tracer() const noexcept { return tracer_; }

  ByteCount resident_bytes() const noexcept {
    const device::FramePool& pool = device_->frames();
    return ByteCount{(pool.capacity().value - pool.free_count().value) * device_->frame_bytes().value};
  }
  // To be called when the number has changed.
  void trace_resident() const noexcept {
    resident_.sample([this] { return resident_bytes().value; });
  }
  void trace_dirty() const noexcept {
    dirty_.sample([this] { return Counters::get(counters_.dirty_bytes); });
  }

  /// Takes a free region id for `file`. \throws Error(resources) if all are in use.
  device::RegionId attach(CoherentFile& file, const std::string& path) {
    for (std::size_t i = 0; i < kRegionsMax; ++i) {
      Entry& e = (*regions_)[i];
      if (e.is_taken.exchange(true)) continue;
      e.file.store(&file);
      return static_cast<device::RegionId>(i);
    }
    throw Error(Errc::resources, path + ": too many files are mapped on one device; unmap some", path);
  }
  /// Returns when no thread uses the file through this id any more.
  void detach(device::RegionId id) noexcept {
    Entry& e = (*regions_)[id];
    e.file.store(nullptr);
    for (auto users = e.users.load(); users != 0; users = e.users.load()) e.users.wait(users);
  }
  /// Lets another file have the id. \pre detached, and no frame belongs to the region
  void give_back(device::RegionId id) noexcept { (*regions_)[id].is_taken.store(false); }

  /// Keeps the file alive, for a scope, whose granule a frame was seen to hold. Empty if it does so no more:
  /// the file may be gone by then, and its region's id another file's.
  class FileUse {
   public:
    FileUse(DeviceSlot& slot, FrameIndex frame, const device::FrameOwner& owner) noexcept
        : entry_((*slot.regions_)[owner.region]) {
      // Sequentially consistent with detach: either it waits for us, or we see null.
      entry_.users.fetch_add(1);
      file_ = entry_.file.load();
      if (file_ != nullptr && slot.device_->frames().owner_at(frame) != owner) file_ = nullptr;
    }
    ~FileUse() {
      if (entry_.users.fetch_sub(1) == 1) entry_.users.notify_all();
    }
    FileUse(const FileUse&) = delete;
    FileUse& operator=(const FileUse&) = delete;
    CoherentFile* get() const noexcept { return file_; }

   private:
    Entry& entry_;
    CoherentFile* file_;
  };

 private:
  std::string name_of_counter(const char* what) const {
    return "device " + std::to_string(number_) + " (" + device_->info().name + "): " + what + " bytes";
  }

  const unsigned number_;
  const std::unique_ptr<device::Device> device_;
  const trace::Tracer& tracer_;
  const trace::Counter resident_;
  const trace::Counter dirty_;
  Counters counters_;
  std::unique_ptr<std::array<Entry, kRegionsMax>> regions_;
};

/// A file's region on a device, under an id by which the device's frames find the file.
class AttachedRegion {
 public:
  /// \throws Error(resources)
  AttachedRegion(DeviceSlot& slot, CoherentFile& file, device::FaultHandler& handler,
                 device::RegionParams params)
      : slot_(&slot), id_(slot.attach(file, params.path)) {
    params.id = id_;
    try {
      region_ = slot.device().attach(std::move(params), handler);
    } catch (...) {
      slot.detach(id_);
      slot.give_back(id_);
      throw;
    }
  }
  AttachedRegion(AttachedRegion&& o) noexcept
      : slot_(std::exchange(o.slot_, nullptr)), id_(o.id_), region_(std::move(o.region_)) {}
  AttachedRegion& operator=(AttachedRegion&&) = delete;
  /// \pre no frame belongs to the region
  ~AttachedRegion() {
    if (slot_ == nullptr) return;
    slot_->detach(id_);
    region_.reset();
    slot_->give_back(id_);
  }

  /// Returns when no thread can reach the file through the device any more.
  void detach() noexcept { slot_->detach(id_); }

  device::RegionId id() const noexcept { return id_; }
  device::Region* get() const noexcept { return region_.get(); }
  device::Region* operator->() const noexcept { return region_.get(); }
  device::Region& operator*() const noexcept { return *region_; }

 private:
  DeviceSlot* slot_;
  device::RegionId id_;
  std::unique_ptr<device::Region> region_;
};

}  // namespace aprime::engine
