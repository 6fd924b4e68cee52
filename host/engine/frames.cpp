#include <algorithm>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <thread>

#include "host/engine/coherent_file.hpp"

namespace aprime::engine {
namespace {

using Clock = std::chrono::steady_clock;

/// How long a fault waits for a frame while all of them are pinned, taken, or cannot be written home.
constexpr std::chrono::seconds kFrameWaitMax{10};
constexpr std::chrono::microseconds kRetryPause{50};

/// Never 0, which means clean.
std::uint32_t now_ms() noexcept {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return static_cast<std::uint32_t>(t.tv_sec * 1000 + t.tv_nsec / 1000000) | 1u;
}

}  // namespace

Progress CoherentFile::obtain_frames(GranuleRange run, unsigned device, const Demand& demand) noexcept {
  if (demand.placement != nullptr) {
    device::Region& region = *regions_[device];
    const FrameCount step = region.params().frames_per_granule;
    const FrameIndex first = placed_at(run.first, device, demand);
    devices_[device]->device().frames().assign(first, step, {region.params().id, run.first}, run.count);
    for (std::uint64_t i = 0; i < run.count.value; ++i) {
      assert(!region.has_frame(run.first + GranuleCount{i}) && "what the device has is in its place already");
      region.set_frame(run.first + GranuleCount{i}, FrameIndex{first.value + i * step.value});
    }
    return {run.count, {}};
  }
  for (std::uint64_t i = 0; i < run.count.value; ++i) {
    const GranuleIndex g = run.first + GranuleCount{i};
    // Only the first granule was really asked for by a fault: the others take what can be had. A lease needs
    // all.
    const bool needed = i == 0 || demand.pin;
    const Status status = obtain_frame(g, device, needed);
    if (!status.is_ok()) return {GranuleCount{i}, needed ? status : Status{}};
  }
  return {run.count, {}};
}

Status CoherentFile::obtain_frame(GranuleIndex g, unsigned device, bool may_wait) noexcept {
  device::Region& region = *regions_[device];
  DeviceSlot& slot = *devices_[device];
  device::FramePool& pool = slot.device().frames();
  const FrameCount count = region.params().frames_per_granule;
  assert(count <= pool.capacity() && "no launch may fault on such a file, and no lease of it fits");
  // Each frame is asked for about twice; for what nobody waits for, some are.
  const std::uint64_t victims_max = 16 + (may_wait ? 2 * (pool.capacity().value / count.value) : 0);
  Patience patience = Patience::ask_once;
  std::uint64_t failures = 0;
  Status why{Errc::device_memory, 0, granule_.offset_of(g)};
  Clock::time_point deadline{};
  for (;;) {
    const auto claim = pool.claim(count, {region.params().id, g});
    if (claim.kind == device::FramePool::Claim::Kind::got) {
      region.set_frame(g, claim.frame);
      return {};
    }
    if (claim.kind == device::FramePool::Claim::Kind::evict) {
      const DeviceSlot::FileUse use(slot, claim.frame, claim.victim);
      if (use.get() == nullptr) continue;
      const Status status = use.get()->evict(device, claim.victim.granule, patience);
      // Threads of a running kernel keep it pinned: there are others, and it may be free the next time.
      const bool is_pinned = status.system_error == EAGAIN;
      // Where it failed may be in another file; the place that is told is the one that was asked for.
      if (!status.is_ok() && !is_pinned) why = {status.code, status.system_error, why.offset, status.reason};
      if (is_pinned && deadline == Clock::time_point{}) deadline = Clock::now() + kFrameWaitMax;
      if (++failures < victims_max && !(is_pinned && Clock::now() > deadline)) continue;
    }
    // Those that could not be written home will not be soon.
    if (!may_wait || why.code != Errc::device_memory) return why;
    const auto now = Clock::now();
    if (deadline == Clock::time_point{}) deadline = now + kFrameWaitMax;
    if (now > deadline) return why;
    std::this_thread::sleep_for(kRetryPause);
    failures = 0;
    // None was free: those that are used all the time have to be given a moment.
    patience = Patience::briefly;
  }
}

FrameIndex CoherentFile::placed_at(GranuleIndex g, unsigned device, const Demand& demand) const noexcept {
  const std::uint64_t step = regions_[device]->params().frames_per_granule.value;
  return FrameIndex{demand.placement->value + (g - demand.placed_from).value * step};
}

Status CoherentFile::place(GranuleRange run, unsigned device, const Demand& demand) noexcept {
  device::Region& region = *regions_[device];
  const FrameCount step = region.params().frames_per_granule;
  device::FramePool& pool = devices_[device]->device().frames();
  for (GranuleIndex g = run.first; g < run.end(); ++g.value) {
    if (!region.has_frame(g)) continue;
    const FrameIndex from = region.frame_of(g);
    const FrameIndex to = placed_at(g, device, demand);
    if (from == to) continue;
    GranuleCount count{1};
    while (g + count < run.end() && region.has_frame(g + count) &&
           region.frame_of(g + count).value == from.value + count.value * step.value)
      ++count.value;
    const Status status = region.move({g, count}, to);
    if (!status.is_ok()) return status;
    pool.move(from, to, step, count);
    for (std::uint64_t i = 0; i < count.value; ++i)
      region.set_frame(g + GranuleCount{i}, FrameIndex{to.value + i * step.value});
    g.value += count.value - 1;
  }
  return {};
}

void CoherentFile::free_frames(GranuleRange run, unsigned device) noexcept {
  device::Region& region = *regions_[device];
  for (std::uint64_t i = 0; i < run.count.value; ++i) {
    const GranuleIndex g = run.first + GranuleCount{i};
    const FrameIndex frame = region.frame_of(g);
    region.clear_frame(g);
    devices_[device]->device().frames().free(frame, region.params().frames_per_granule);
  }
  if (!run.empty()) devices_[device]->trace_resident();
}

Status CoherentFile::evict(unsigned device, GranuleIndex g, Patience patience) noexcept {
  const Demand demand{.event = Event::evict, .requester = AgentId::device(device), .patience = patience};
  Run run{{g, GranuleCount{1}}, {}};
  if (!take_first(g, demand, run)) return {};
  // Only this device's own leases keep the frame. If those of others did, two devices that lease the same
  // granules could each wait for the other's lease to end before it has room for its own.
  if (devices_[device]->device().frames().is_pinned(regions_[device]->frame_of(g))) {
    let_go(run.range, false);
    return {};
  }
  const Status status = execute(run, demand);
  if (status.is_ok()) Counters::add(devices_[device]->counters().evictions);
  return status;
}

void CoherentFile::mark_dirty(GranuleRange run, unsigned device) noexcept {
  device::FramePool& pool = devices_[device]->device().frames();
  const std::uint32_t now = now_ms();
  std::uint64_t newly = 0;
  regions_[device]->for_each_row(
      run, [&](FrameIndex first, FrameCount count) { newly += pool.set_all_dirty_since(first, count, now); });
  if (newly == 0) return;
  Counters::add(devices_[device]->counters().dirty_bytes, granule_.bytes_of(GranuleCount{newly}).value);
  devices_[device]->trace_dirty();
}

void CoherentFile::mark_clean(GranuleRange run, unsigned device) noexcept {
  device::FramePool& pool = devices_[device]->device().frames();
  std::uint64_t cleaned = 0;
  regions_[device]->for_each_row(
      run, [&](FrameIndex first, FrameCount count) { cleaned += pool.set_all_dirty_since(first, count, 0); });
  if (cleaned == 0) return;
  Counters::sub(devices_[device]->counters().dirty_bytes, granule_.bytes_of(GranuleCount{cleaned}).value);
  devices_[device]->trace_dirty();
}

}  // namespace aprime::engine
