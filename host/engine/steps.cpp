#include <algorithm>
#include <cerrno>

#include "host/engine/coherent_file.hpp"

namespace aprime::engine {

Status CoherentFile::take_step(Run& run, Step step, const Demand& demand) noexcept {
  switch (step) {
    case Step::protect: return protect(run, demand);
    case Step::copy_home: return copy_home(run, demand.requester);
    case Step::revoke_others:
    case Step::revoke_devices: return revoke(run, step, demand);
    case Step::drop:
      return release(run, run.state.owner.device_number(), step, demand.requester, demand.patience);
    case Step::release:
      return release(run, demand.requester.device_number(), step, demand.requester, demand.patience);
    case Step::fill: return fill(run, step, demand);
    case Step::adopt:
      return overwritten_whole(run.range, demand) ? fill(run, step, demand) : fill_to_write(run, demand);
    case Step::grant_read: return grant_to_host(run, step, demand);
    case Step::grant_write:
      return demand.requester.is_cpu() ? grant_to_host(run, step, demand)
             : demand.requester.is_mount()
                 // The kernel gives itself the right, with the page that is sent to it.
                 ? settle(run, {run.range.count, {}}, step, demand.requester)
                 : grant_write_to_device(run, demand.requester);
    case Step::io_home:
    case Step::io_copy: return do_io(run, step, demand);
  }
  return {};
}

/// Who waits for one granule until threads of a kernel let go holds no other meanwhile: those threads, or
/// others, may want it.
template <class Try, class Take>
Progress CoherentFile::take_from_kernels(Run& run, Patience patience, const Try& try_to,
                                         const Take& take) noexcept {
  if (asking(patience) != device::Asking::until_they_have) return try_to(asking(patience));
  if (run.range.count.value == 1) return take();
  const Progress p = try_to(device::Asking::for_a_moment);
  if (p.status.is_ok() || p.status.system_error != EAGAIN) return p;
  if (p.done.value > 0) return {p.done, {}};
  let_go({run.range.first + GranuleCount{1}, run.range.count - GranuleCount{1}}, false);
  run.range.count = GranuleCount{1};
  return take();
}

Status CoherentFile::protect(Run& run, const Demand& demand) noexcept {
  const AgentId requester = demand.requester;
  const trace::Range range(tracer_, trace::Kind::revoke, granule_.bytes_of(run.range.count));
  if (run.state.owner.is_device()) {
    device::Region& region = *regions_[run.state.owner.device_number()];
    const Progress p = take_from_kernels(
        run, demand.patience, [&](device::Asking how) { return region.try_protect(run.range, how); },
        [&] { return region.protect(run.range); });
    return settle(run, p, Step::protect, requester);
  }
  if (run.state.owner.is_mount() && demand.patience == Patience::at_once)
    return settle(run, {GranuleCount{0}, {Errc::resources, EAGAIN, granule_.offset_of(run.range.first)}},
                  Step::protect, requester);
  if (run.state.owner.is_mount()) return recall(run, requester);
  const ViewGate::Pass pass(view_gate_);
  // Where the hardware gives less already (see ProtectedRange) this is a grant, which can fail.
  Status status = set_views(run, nullptr, os::Protection::read);
  if (!status.is_ok()) status = set_views(run, nullptr, os::Protection::none);
  return settle(run, {status.is_ok() ? run.range.count : GranuleCount{0}, status}, Step::protect, requester);
}

Status CoherentFile::copy_home(Run& run, AgentId requester) noexcept {
  const unsigned d = run.state.owner.device_number();
  const trace::Range range(tracer_, trace::Kind::copy_back, granule_.bytes_of(run.range.count));
  const Storing storing(*this);
  const Progress p = regions_[d]->copy_home(run.range, *this);
  Counters& counters = devices_[d]->counters();
  Counters::add(counters.granules_copied_back, p.done.value);
  Counters::add(counters.bytes_copied_back, granule_.bytes_of(p.done).value);
  // Before they are clean: until then a sync waits for this transaction, afterwards its fdatasync may fail,
  // and the next one succeed, without the mark.
  unsynced_.mark({run.range.first, p.done});
  mark_clean({run.range.first, p.done}, d);
  if (!p.status.is_ok()) {
    Counters::add(counters.writeback_errors);
    errors_.record(p.status);
  }
  return settle(run, p, Step::copy_home, requester);
}

Status CoherentFile::revoke(Run& run, Step step, const Demand& demand) noexcept {
  const AgentId requester = demand.requester;
  Status first_error;
  for (unsigned d = 0; d < devices_.size() && !run.range.empty(); ++d) {
    const AgentId agent = AgentId::device(d);
    const bool keeps = step == Step::revoke_others && agent == requester;
    if (keeps || run.state.kind != coherence::Kind::shared || !run.state.readers.contains(agent)) continue;
    // One device after the other through the door, so that the directory is right if one of them fails.
    const Status status = release(run, d, Step::release, agent, demand.patience);
    if (first_error.is_ok()) first_error = status;
  }
  if (run.range.empty()) return first_error;
  const bool from_cpu =
      step == Step::revoke_others && !requester.is_cpu() && run.state.may_read(AgentId::cpu());
  const ViewGate::Pass pass(view_gate_);
  Status status;
  if (from_cpu) {
    const trace::Range range(tracer_, trace::Kind::revoke, granule_.bytes_of(run.range.count));
    status = set_views(run, nullptr, os::Protection::none);
  }
  const Status settled =
      settle(run, {status.is_ok() ? run.range.count : GranuleCount{0}, status}, step, requester);
  return first_error.is_ok() ? settled : first_error;
}

Status CoherentFile::release(Run& run, unsigned device, Step step, AgentId requester,
                             Patience patience) noexcept {
  const trace::Range range(tracer_, trace::Kind::revoke, granule_.bytes_of(run.range.count));
  device::Region& region = *regions_[device];
  const Progress p = take_from_kernels(
      run, patience, [&](device::Asking how) { return region.try_release(run.range, how); },
      [&] { return region.release(run.range); });
  mark_clean({run.range.first, p.done}, device);
  free_frames({run.range.first, p.done}, device);
  return settle(run, p, step, requester);
}

Status CoherentFile::fill(Run& run, Step step, const Demand& demand) noexcept {
  const unsigned d = demand.requester.device_number();
  device::Region& region = *regions_[d];
  const Progress frames = obtain_frames(run.range, d, demand);
  // Nothing behind the end that devices know: it would be taken for what they had there before a cut.
  const GranuleIndex end = end_in_order_with_places();
  const GranuleCount inside = std::min(frames.done, end - std::min(end, run.range.first));
  free_frames({run.range.first + inside, frames.done - inside}, d);
  const GranuleRange with_frames{run.range.first, inside};
  if (with_frames.empty()) {
    const Status beyond{Errc::out_of_range, 0, granule_.offset_of(run.range.first)};
    return settle(run, {GranuleCount{0}, frames.done.value != 0 ? beyond : frames.status}, step,
                  demand.requester);
  }
  devices_[d]->trace_resident();
  // Dirty before the device can store: another of its threads may, as soon as the hardware lets it, and a
  // sync that begins after that store looks for what is dirty.
  if (step == Step::adopt) mark_dirty(with_frames, d);
  Progress p = step == Step::fill ? copy_out(with_frames, region) : region.adopt(with_frames);
  const GranuleRange rest{with_frames.first + p.done, inside - p.done};
  if (step == Step::adopt) mark_clean(rest, d);
  free_frames(rest, d);
  if (p.status.is_ok()) p.status = frames.status;
  if (step == Step::fill) {
    Counters& counters = devices_[d]->counters();
    Counters::add(counters.granules_filled, p.done.value);
    Counters::add(counters.bytes_filled, granule_.bytes_of(p.done).value);
  }
  return settle(run, p, step, demand.requester);
}

/// The file may have grown since somebody saw it end where the overwritten bytes do; while the granule that
/// has its end is held, it grows by nothing but zeros.
bool CoherentFile::overwritten_whole(GranuleRange run, const Demand& demand) noexcept {
  if (granule_.bytes_of(run).end() <= demand.overwritten_end) return true;
  const os::File::SizeResult size = file_.size();
  return size.status.is_ok() && size.size.value <= demand.overwritten_end.value;
}

Status CoherentFile::fill_to_write(Run& run, const Demand& demand) noexcept {
  const Status filled = fill(run, Step::fill, demand);
  if (run.range.empty()) return filled;
  const Status granted = grant_write_to_device(run, demand.requester);
  return filled.is_ok() ? granted : filled;
}

Progress CoherentFile::copy_out(GranuleRange run, device::Region& region) noexcept {
  const trace::Range range(tracer_, trace::Kind::fill, granule_.bytes_of(run.count));
  return region.fill(run, *this);
}

Status CoherentFile::grant_to_host(Run& run, Step step, const Demand& demand) noexcept {
  const ViewGate::Pass pass(view_gate_);
  const Status status = set_views(
      run, demand.view, step == Step::grant_read ? os::Protection::read : os::Protection::read_write);
  // One view may not keep what another could not be given: nobody would take it away again.
  if (!status.is_ok() && demand.view == nullptr)
    static_cast<void>(set_views(run, nullptr, os::Protection::none));
  return settle(run, {status.is_ok() ? run.range.count : GranuleCount{0}, status}, step, demand.requester);
}

Status CoherentFile::grant_write_to_device(Run& run, AgentId requester) noexcept {
  const unsigned d = requester.device_number();
  mark_dirty(run.range, d);  // before the device can store, as in `fill`
  const Progress p = regions_[d]->grant_write(run.range);
  // What was dirty before stays so: home does not have it.
  if (run.state.home_is_current()) mark_clean({run.range.first + p.done, run.range.count - p.done}, d);
  return settle(run, p, Step::grant_write, requester);
}

Status CoherentFile::do_io(Run& run, Step step, const Demand& demand) noexcept {
  Progress p{run.range.count, {}};
  if (demand.io != nullptr && step == Step::io_home) {
    if (demand.shuts_out_host) {
      // Less than the directory allows, which is always safe: the next access traps, waits for this
      // transaction, and is given its right again.
      const ViewGate::Pass pass(view_gate_);
      p.status = set_views(run, nullptr, os::Protection::none);
    }
    if (p.status.is_ok()) {
      const Storing storing(*this);
      p.status = demand.io->on_home(run.range);
      // Also after a failure: some of it may have been written.
      if (demand.event != Event::io_read && demand.event != Event::bounce_read) unsynced_.mark(run.range);
    }
    if (!p.status.is_ok()) p.done = GranuleCount{0};
  } else if (demand.io != nullptr) {
    const unsigned d = run.state.owner.device_number();
    for (std::uint64_t i = 0; i < run.range.count.value; ++i) {
      p.status = demand.io->on_copy(run.range.first + GranuleCount{i}, *regions_[d]);
      if (p.status.is_ok()) continue;
      p.done = GranuleCount{i};
      break;
    }
  }
  return settle(run, p, step, demand.requester);
}

Status CoherentFile::set_views(Run& run, HostView* only, os::Protection p) noexcept {
  if (only != nullptr) return only->set(run.range, p);
  Status first_error;
  for (HostView* view : views_) {
    const Status status = view->set(run.range, p);
    if (first_error.is_ok()) first_error = status;
  }
  return first_error;
}

}  // namespace aprime::engine
