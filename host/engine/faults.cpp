#include <algorithm>
#include <chrono>
#include <ctime>
#include <thread>

#include "host/engine/coherent_file.hpp"

namespace aprime::engine {
namespace {

constexpr std::uint64_t kBatchBytesMax = device::kCopiedAtOnceMin.value;

std::uint64_t now_us() noexcept {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1000000 + static_cast<std::uint64_t>(t.tv_nsec) / 1000;
}

}  // namespace

Status CoherentFile::on_device_fault(device::Region& region, GranuleIndex g, bool write) noexcept {
  unsigned d = 0;
  while (regions_[d].get() != &region) ++d;
  const ByteOffset at = granule_.offset_of(g);
  if (write && file_.access() == Access::read) return {Errc::access_denied, 0, at};

  Counters& counters = devices_[d]->counters();
  Counters::add(write ? counters.write_faults : counters.read_faults);
  const trace::Range range(tracer_, write ? trace::Kind::device_write_fault : trace::Kind::device_read_fault);
  const AgentId agent = AgentId::device(d);
  throttle(g, agent);
  // A batch may not fill more than a part of the device's memory, or it would evict its own beginning.
  const std::uint64_t frames = devices_[d]->device().frames().capacity().value;
  const std::uint64_t most = std::min(kBatchBytesMax / granule_.bytes().value,
                                      frames / region.params().frames_per_granule.value / 8);
  const GranuleCount wanted = device_streams_[d].on_fault(g, GranuleCount{std::max<std::uint64_t>(1, most)});
  const ByteCount room = granule_.bytes_of(GranuleCount{granules_on_devices_.load()});
  const ByteRange bytes = granule_.bytes_of(GranuleRange{g, GranuleCount{1}});
  for (;;) {
    const os::File::SizeResult size = file_.size();
    if (!size.status.is_ok()) return size.status;
    if (at.value >= size.size.value) return {Errc::out_of_range, 0, at};
    if (hides_new_size(size.size, bytes.end())) {
      // As for the mount: who has what lies behind the end may wait for this kernel.
      const Status taken_in = take_in_size(AgentId::mount());
      if (!taken_in.is_ok()) return taken_in;
    }
    const Status status =
        perform_batch(g, clip_to_file(g, wanted, std::min(size.size, room)),
                      {.event = write ? Event::write : Event::read, .requester = agent, .is_fault = true});
    // Else the file was cut, and has grown again, while the granule was waited for.
    if (status.code != Errc::out_of_range || !hides_new_size(bytes)) return status;
  }
}

Status CoherentFile::on_host_fault(HostView& view, GranuleIndex g, bool write) noexcept {
  Counters::add(write ? host_.write_faults : host_.read_faults);
  const trace::Range range(tracer_, write ? trace::Kind::host_write_fault : trace::Kind::host_read_fault);
  throttle(g, AgentId::cpu());
  const std::uint64_t most = std::max<std::uint64_t>(1, kBatchBytesMax / granule_.bytes().value);
  GranuleCount wanted = host_stream_.on_fault(g, GranuleCount{most});
  if (wanted.value > 1) {
    // The view has asked for the faulting byte (is_backed); only its neighbours may lie beyond the end.
    const os::File::SizeResult size = file_.size();
    if (!size.status.is_ok()) return size.status;
    wanted = clip_to_file(g, wanted, size.size);
  }
  return perform_batch(g, wanted,
                       {.event = write ? Event::write : Event::read,
                        .requester = AgentId::cpu(),
                        .is_fault = true,
                        .view = &view});
}

bool CoherentFile::is_backed(ByteOffset at) noexcept {
  const os::File::SizeResult size = file_.size();
  const std::uint64_t pages = (size.size.value + os::kPageBytes - 1) / os::kPageBytes;
  return !size.status.is_ok() || at.value < pages * os::kPageBytes;
}

GranuleCount CoherentFile::clip_to_file(GranuleIndex g, GranuleCount wanted,
                                        ByteCount file_size) const noexcept {
  const std::uint64_t end = std::min(granule_.count_for(file_size).value, directory_.capacity().value);
  return GranuleCount{std::max<std::uint64_t>(1, std::min(wanted.value, end - std::min(end, g.value)))};
}

void CoherentFile::throttle(GranuleIndex g, AgentId requester) noexcept {
  const GranuleState state = directory_.load(g).state();
  // Only an access that ends another side's ownership is a move to and fro.
  const bool takes = requester.is_cpu() ? state.is_device_dirty()
                                        : state.kind == coherence::Kind::cpu_exclusive ||
                                              (state.is_device_dirty() && state.owner != requester);
  if (!takes) return;
  const std::chrono::microseconds hold = traffic_.on_move(g, now_us());
  if (hold.count() == 0) return;
  Counters::add(requester.is_cpu() ? host_.throttled
                                   : devices_[requester.device_number()]->counters().throttled);
  std::this_thread::sleep_for(hold);
}

}  // namespace aprime::engine
