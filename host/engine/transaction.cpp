#include <algorithm>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <optional>
#include <thread>

#include "host/engine/coherent_file.hpp"

namespace aprime::engine {
namespace {

using Clock = std::chrono::steady_clock;

/// How often a granule that is busy is asked for before those that are pinned already are let go, and how
/// long one that threads of a kernel use, who may wait for those.
constexpr int kPinTriesMax = 64;
constexpr std::chrono::milliseconds kPinWaitMax{60};
constexpr std::chrono::microseconds kRetryPause{100};

}  // namespace

Progress CoherentFile::perform_counted(GranuleRange range, const Demand& demand) noexcept {
  GranuleCount done{0};
  while (done.value < range.count.value) {
    const Progress p = perform_run(range.first + done, range.count - done, demand);
    done.value += p.done.value;
    if (!p.status.is_ok()) return {done, p.status};
  }
  return {done, {}};
}

Status CoherentFile::pin_together(GranuleRange range, const Demand& demand) noexcept {
  Demand without_waiting = demand;
  without_waiting.pin = true;
  without_waiting.patience = Patience::briefly;
  for (;;) {
    GranuleCount done{0};
    auto give_up = Clock::now() + kPinWaitMax;
    for (int tries = 0; tries < kPinTriesMax && Clock::now() < give_up; ++tries) {
      if (tries > 0) std::this_thread::sleep_for(kRetryPause);
      const Progress p = perform_counted({range.first + done, range.count - done}, without_waiting);
      done.value += p.done.value;
      if (p.status.is_ok()) return {};
      if (p.done.value > 0) tries = 0, give_up = Clock::now() + kPinWaitMax;
      if (p.status.system_error == EAGAIN) continue;
      unpin({range.first, done});
      return p.status;
    }
    unpin({range.first, done});
    const Status status = perform({range.first + done, GranuleCount{1}}, demand);
    if (!status.is_ok()) return status;
  }
}

Status CoherentFile::perform_batch(GranuleIndex first, GranuleCount wanted, const Demand& demand) noexcept {
  const Progress p = perform_run(first, wanted, demand);
  // A neighbour that could not be had is nobody's error: nobody touched it yet.
  return p.done.value > 0 ? Status{} : p.status;
}

Progress CoherentFile::perform_run(GranuleIndex first, GranuleCount wanted, const Demand& demand) noexcept {
  Run run{{first, GranuleCount{1}}, {}};
  if (!take_first(first, demand, run)) {
    if (demand.pin) return {GranuleCount{0}, {Errc::resources, EAGAIN, granule_.offset_of(first)}};
    return {GranuleCount{1}, {}};
  }
  take_more(run, wanted, demand);
  const Status status = execute(run, demand);
  return {run.range.count, status};
}

bool CoherentFile::take_first(GranuleIndex g, const Demand& demand, Run& run) noexcept {
  // A fault always takes the granule, even if the directory already allows the access: the hardware has less
  // than that, and may be given it only while nobody takes it away.
  const GranuleWord seen = directory_.load(g);
  if (!demand.pin && !demand.is_fault && !seen.busy() &&
      plan(seen.state(), demand.event, demand.requester).empty())
    return false;
  if (leaves_busy_alone(demand.patience)) {
    run.state = seen.state();
    if (!demand.pin && plan(run.state, demand.event, demand.requester).empty()) return false;
    return directory_.try_begin(g, in_the_way(run.state, demand) != PinsInTheWay::none, &run.state);
  }
  if (demand.patience != Patience::unless_recalled)
    run.state = directory_.begin(g);
  else if (!directory_.begin_unless_recalled(g, &run.state))
    return false;
  switch (in_the_way(run.state, demand)) {
    case PinsInTheWay::none: break;
    case PinsInTheWay::of_devices: directory_.drain_pins(g, [&] { return is_pinned_by_device(g); }); break;
    case PinsInTheWay::of_all: directory_.drain_pins(g, [] { return true; }); break;
  }
  return true;
}

PinsInTheWay CoherentFile::in_the_way(const coherence::GranuleState& s, const Demand& demand) noexcept {
  if (demand.event == Event::evict) return PinsInTheWay::none;  // takes from the requester alone: see `evict`
  if (demand.shuts_out_host) return PinsInTheWay::of_all;
  return pins_in_the_way(s, plan(s, demand.event, demand.requester), demand.event, demand.requester);
}

/// A device's lease gives its frames back before the granule's word.
bool CoherentFile::is_pinned_by_device(GranuleIndex g) const noexcept {
  for (std::size_t d = 0; d < devices_.size(); ++d)
    if (regions_[d]->has_frame(g) && devices_[d]->device().frames().is_pinned(regions_[d]->frame_of(g)))
      return true;
  return false;
}

/// The most that is done in one go: what the devices that may have to copy are best at.
ByteCount CoherentFile::bytes_at_once(const Run& run, const Demand& demand) const noexcept {
  // The caller's own I/O is done by one thread.
  if (demand.io != nullptr) return device::kCopiedAtOnceMin;
  std::optional<ByteCount> least;
  for (const AgentId agent : {demand.requester, run.state.owner}) {
    if (!agent.is_device()) continue;
    const ByteCount bytes = regions_[agent.device_number()]->copied_at_once();
    if (!least || bytes < *least) least = bytes;
  }
  return least.value_or(device::kCopiedAtOnceMin);
}

void CoherentFile::take_more(Run& run, GranuleCount wanted, const Demand& demand) noexcept {
  const coherence::StepList steps = plan(run.state, demand.event, demand.requester);
  // Of many device threads that wait for neighbours, the first is served with all of them. The others' faults
  // find nothing to do: each has its own granule restored, or every one of them would have all.
  if (demand.is_fault && demand.requester.is_device() && steps.empty()) return;
  const std::uint64_t most =
      std::max<std::uint64_t>(1, bytes_at_once(run, demand).value / granule_.bytes().value);
  const std::uint64_t count = std::min(wanted.value, most);
  const bool unpinned = in_the_way(run.state, demand) != PinsInTheWay::none;
  while (run.range.count.value < count && directory_.try_begin(run.range.end(), unpinned, &run.state))
    run.range.count.value += 1;
}

Status CoherentFile::execute(Run& run, const Demand& demand) noexcept {
  const coherence::StepList steps = plan(run.state, demand.event, demand.requester);
  Status first_error;
  if (demand.placement != nullptr) {
    // Copies that the device has already move to where the lease wants them; the others are filled there.
    first_error = place(run.range, demand.requester.device_number(), demand);
    if (!first_error.is_ok()) {
      let_go(run.range, false);
      run.range.count = GranuleCount{0};
      return first_error;
    }
  }
  if (demand.io != nullptr && demand.requester.is_mount() && run.state.owner.is_mount())
    return do_mounts_own(run, demand);
  // A step that stops half-way splits the run: the granules that it reached go on to the end, the others are
  // let go in the state they had, which is a legal one.
  for (const Step step : steps) {
    const Status status = take_step(run, step, demand);
    if (first_error.is_ok()) first_error = status;
    if (run.range.empty()) return first_error;
  }
  const Status status = finish(run, demand, steps.empty());
  return first_error.is_ok() ? status : first_error;
}

Status CoherentFile::finish(Run& run, const Demand& demand, bool nothing_planned) noexcept {
  Status status;
  if (nothing_planned && demand.is_fault) {
    const bool write = run.state.may_write(demand.requester);
    if (demand.requester.is_device()) {
      DeviceSlot& slot = *devices_[demand.requester.device_number()];
      Counters::add(slot.counters().spurious_faults);
      status = regions_[slot.number()]->restore(run.range, write);
    } else {
      // A lease asks for the right whether it is there or not; nothing has trapped.
      if (!demand.pin) Counters::add(host_.spurious_faults);
      const ViewGate::Pass pass(view_gate_);
      status = set_views(run, demand.view, write ? os::Protection::read_write : os::Protection::read);
    }
  }
  if (demand.pin && status.is_ok() && !can_pin(run.range))
    status = {Errc::resources, 0, granule_.offset_of(run.range.first),
              "a granule of it has 16383 leases, and more cannot be counted"};
  if (demand.pin && status.is_ok() && demand.requester.is_device()) {
    const unsigned d = demand.requester.device_number();
    device::FramePool& pool = devices_[d]->device().frames();
    regions_[d]->for_each_row(run.range, [&](FrameIndex first, FrameCount count) { pool.pin(first, count); });
  }
  let_go(run.range, demand.pin && status.is_ok());
  if (!status.is_ok()) run.range.count = GranuleCount{0};
  return status;
}

Status CoherentFile::settle(Run& run, Progress progress, Step step, AgentId requester) noexcept {
  assert(progress.done.value <= run.range.count.value);
  assert(!progress.status.is_ok() || progress.done.value > 0);
  const GranuleRange rest{run.range.first + progress.done,
                          run.range.end() - (run.range.first + progress.done)};
  let_go(rest, false);
  run.range.count = progress.done;
  if (run.range.empty()) return progress.status;
  run.state = apply(run.state, step, requester);
  for (std::uint64_t i = 0; i < run.range.count.value; ++i)
    directory_.publish(run.range.first + GranuleCount{i}, run.state);
  return progress.status;
}

/// Nobody else adds pins while they are ours.
bool CoherentFile::can_pin(GranuleRange range) const noexcept {
  for (GranuleIndex g = range.first; g < range.end(); ++g.value)
    if (directory_.load(g).pins() == GranuleWord::kPinsMax) return false;
  return true;
}

void CoherentFile::let_go(GranuleRange range, bool pin) noexcept {
  for (std::uint64_t i = 0; i < range.count.value; ++i) directory_.end(range.first + GranuleCount{i}, pin);
}

/// Frames first: see `is_pinned_by_device`.
void CoherentFile::unpin(GranuleRange range, AgentId holder) noexcept {
  if (holder.is_device()) {
    const unsigned d = holder.device_number();
    device::FramePool& pool = devices_[d]->device().frames();
    regions_[d]->for_each_row(range, [&](FrameIndex first, FrameCount count) { pool.unpin(first, count); });
  }
  for (std::uint64_t i = 0; i < range.count.value; ++i) directory_.unpin(range.first + GranuleCount{i});
}

}  // namespace aprime::engine
