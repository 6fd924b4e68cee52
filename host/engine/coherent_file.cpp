#include "host/engine/coherent_file.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace aprime::engine {
namespace {

FrameCount frames_per_granule(GranuleSize granule, device::Device& device) {
  return FrameCount{std::max<std::uint64_t>(1, granule.bytes().value / device.frame_bytes().value)};
}

}  // namespace

CoherentFile::CoherentFile(os::File file, ByteCount size, GranuleSize granule,
                           std::span<DeviceSlot* const> devices, Counters& host, MountSlot& mount,
                           const trace::Tracer& tracer)
    : file_(std::move(file)),
      granule_(granule),
      devices_(devices.begin(), devices.end()),
      host_(host),
      mount_(mount),
      tracer_(tracer) {
  const GranuleCount granules{std::max<std::uint64_t>(1, granule_.count_for(size).value)};
  directory_.reserve(granules);
  unsynced_.reserve(granules);
  mounted_.reserve(granules);
  file_.extend_alias(size);
  known_end_.store(size.value);
  granules_on_devices_.store(granules.value);
  for (DeviceSlot* slot : devices_)
    regions_.emplace_back(
        *slot, *this, *this,
        device::RegionParams{.id = 0,
                             .granule = granule_,
                             .frames_per_granule = frames_per_granule(granule_, slot->device()),
                             .path = file_.path(),
                             .granules = granules});
}

CoherentFile::~CoherentFile() {
  // What could not be written home is given up by the caller; its frames go back all the same.
  for (unsigned d = 0; d < devices_.size(); ++d) {
    regions_[d].detach();
    const GranuleCount on_device{granules_on_devices_.load()};
    directory_.for_each_touched({GranuleIndex{0}, on_device}, [&](GranuleIndex g, GranuleWord) {
      if (!regions_[d]->has_frame(g)) return;
      const GranuleRange one{g, GranuleCount{1}};
      static_cast<void>(regions_[d]->release(one));
      mark_clean(one, d);
      free_frames(one, d);
    });
    Counters::add(devices_[d]->counters().over_protections, regions_[d]->over_protections());
  }
}

void CoherentFile::reserve(ByteCount size) {
  const sync::Lock lock(reserve_mutex_);
  reserve_tables(size);
  for (const auto& region : regions_)
    if (!region->reserve(granule_.count_for(size)).is_ok())
      throw Error(
          Errc::resources,
          fmt::format("{}: no address space for a file of {} bytes on a device", file_.path(), size.value),
          file_.path());
  const std::uint64_t granules = granule_.count_for(size).value;
  if (granules > granules_on_devices_.load()) granules_on_devices_.store(granules);
}

void CoherentFile::reserve_for_mount(ByteCount size) {
  const sync::Lock lock(reserve_mutex_);
  reserve_tables(size);
}

void CoherentFile::reserve_tables(ByteCount size) {
  const GranuleCount granules = granule_.count_for(size);
  unsynced_.reserve(granules);
  mounted_.reserve(granules);
  // After the marks: who finds a granule here marks it.
  directory_.reserve(granules);
  file_.extend_alias(size);
}

void CoherentFile::add_view(HostView& view) {
  const ViewGate::Closed closed(view_gate_);
  views_.push_back(&view);
  // The view was mapped with all rights; the gate keeps everyone from taking or giving any while it learns
  // the state of the granules that are not as at the beginning.
  directory_.for_each_touched(view.granules(), [&](GranuleIndex g, GranuleWord w) {
    const GranuleState s = w.state();
    if (s.may_write(AgentId::cpu()) && !w.busy()) return;
    // Taking rights away cannot fail in the end (ProtectedRange::set). A transaction under way may have shut
    // out the host altogether.
    const bool may_read = s.may_read(AgentId::cpu()) && !w.busy();
    static_cast<void>(view.set({g, GranuleCount{1}}, may_read ? os::Protection::read : os::Protection::none));
  });
}

void CoherentFile::remove_view(HostView& view) noexcept {
  const ViewGate::Closed closed(view_gate_);
  std::erase(views_, &view);
  if (view.access() == Access::read_write) ended_views_ = around(ended_views_, view.granules());
  Counters::add(host_.over_protections, view.over_protections());
}

std::uint64_t CoherentFile::view_over_protections() noexcept {
  const ViewGate::Pass pass(view_gate_);
  std::uint64_t sum = 0;
  for (const HostView* view : views_) sum += view->over_protections();
  return sum;
}

bool CoherentFile::any_view_contains(const void* p, std::size_t size) noexcept {
  const ViewGate::Pass pass(view_gate_);
  const auto* first = static_cast<const std::byte*>(p);
  return std::any_of(views_.begin(), views_.end(), [&](const HostView* view) {
    return size > 0 && (view->contains(first) || view->contains(first + size - 1));
  });
}

void CoherentFile::advise(Advice advice) noexcept {
  for (StreamDetector& stream : device_streams_) stream.advise(advice);
  host_stream_.advise(advice);
}

}  // namespace aprime::engine
