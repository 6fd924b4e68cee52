#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>
#include <vector>

#include "host/engine/coherent_file.hpp"

namespace aprime::engine {

std::vector<GranuleRange> CoherentFile::dirty_runs(GranuleRange range) {
  // The frame tables know what is dirty: looking there costs what device memory holds, not what the file
  // spans.
  std::vector<device::FrameOwner> owners;
  for (std::size_t d = 0; d < devices_.size(); ++d)
    devices_[d]->device().frames().collect(regions_[d].id(), range, true, owners);
  std::sort(owners.begin(), owners.end(),
            [](const auto& a, const auto& b) { return a.granule.value < b.granule.value; });
  std::vector<GranuleRange> runs;
  for (const device::FrameOwner& owner : owners) {
    if (!runs.empty() && runs.back().end() == owner.granule)
      runs.back().count.value += 1;
    else if (runs.empty() || runs.back().end().value < owner.granule.value)
      runs.push_back({owner.granule, GranuleCount{1}});
  }
  return runs;
}

Status CoherentFile::write_back(GranuleRange range, Patience patience) noexcept {
  // The later a cut is seen, the more of what is added after it is taken for what was there before.
  take_in_cut();
  std::vector<GranuleRange> runs;
  try {
    runs = dirty_runs(range);
  } catch (const std::bad_alloc&) {
    return write_back_each(range, patience);
  }
  if (runs.empty()) return {};
  GranuleCount dirty{0};
  for (const GranuleRange& run : runs) dirty.value += run.count.value;
  const trace::Range traced(tracer_, trace::Kind::writeback, granule_.bytes_of(dirty));
  Status first_error;
  for (const GranuleRange& run : runs) {
    const Status status = write_back_run(run, patience);
    if (first_error.is_ok()) first_error = status;
  }
  return first_error;
}

/// Where there is no memory for a list of what is dirty.
Status CoherentFile::write_back_each(GranuleRange range, Patience patience) noexcept {
  Status first_error;
  directory_.for_each_touched(range, [&](GranuleIndex g, GranuleWord seen) {
    if (!seen.busy() && !seen.state().is_device_dirty()) return;
    const Status status = write_back_run({g, GranuleCount{1}}, patience);
    if (first_error.is_ok()) first_error = status;
  });
  return first_error;
}

Status CoherentFile::write_back_run(GranuleRange run, Patience patience) noexcept {
  Status first_error;
  std::uint64_t at = run.first.value;
  while (at < run.end().value) {
    // After a failure the others are tried all the same: their blocks may be there already, or on another
    // disk.
    const Progress p = perform_run(GranuleIndex{at}, GranuleCount{run.end().value - at},
                                   {.event = Event::writeback, .patience = patience});
    if (first_error.is_ok()) first_error = p.status;
    at += p.done.value + (p.status.is_ok() ? 0 : 1);
  }
  if (patience == Patience::skip) file_.start_writeback(granule_.bytes_of(run));
  return first_error;
}

Status CoherentFile::sync(GranuleRange range, AgentId requester) noexcept {
  const trace::Range traced(tracer_, trace::Kind::sync);
  // What cannot be recalled is told by the program's own msync.
  if (!requester.is_mount()) static_cast<void>(recall_all(range, Event::writeback));
  const Status written = write_back(range, Patience::wait);
  const Status synced = sync_home();
  return written.is_ok() ? synced : written;
}

Status CoherentFile::sync_home() noexcept {
  // One at a time: the kernel reports a failed write to one fdatasync and success to the next, which must not
  // be taken for an answer before the bytes were written again.
  const sync::Lock lock(sync_mutex_);
  try {
    return try_sync_home();
  } catch (const std::bad_alloc&) {
    return {Errc::resources, ENOMEM, {}};
  }
}

Status CoherentFile::try_sync_home() {
  // What was on its way to home when an earlier fdatasync failed may have no mark yet: then the next one that
  // succeeds says nothing of it.
  const bool all_are_marked = storing_.load() == 0;
  if (last_sync_failed_) {
    const Status status = dirty_unsynced();
    if (!status.is_ok()) return status;
  }
  const std::vector<GranuleRange> covered = unsynced_.take();
  const GranuleRange by_pointer = around(unsynced_by_pointer_, take_within_pointers());
  const Status synced = file_.sync();
  last_sync_failed_ = !synced.is_ok() || (last_sync_failed_ && !all_are_marked);
  unsynced_by_pointer_ = {};
  if (!synced.is_ok()) {
    for (const GranuleRange& run : covered) unsynced_.mark(run);
    // Also what pointers have come to reach meanwhile.
    unsynced_by_pointer_ = around(by_pointer, take_within_pointers());
    errors_.record(synced);
  }
  return synced;
}

Status CoherentFile::come_home() noexcept {
  const GranuleRange all{GranuleIndex{0}, directory_.capacity()};
  const Status status = write_back(all, Patience::wait);
  if (!status.is_ok()) return status;
  {
    const sync::Lock lock(sync_mutex_);
    if (!last_sync_failed_) return {};
  }
  // With the file goes what is known of it: whoever maps it next would be told that it is on the disk.
  return sync(all);
}

bool CoherentFile::is_home() const noexcept {
  for (std::size_t d = 0; d < devices_.size(); ++d)
    if (devices_[d]->device().frames().has_dirty(regions_[d].id())) return false;
  return true;
}

Status CoherentFile::dirty_unsynced() {
  Status first_error = file_.dirty_again(granule_.bytes_of(unsynced_by_pointer_));
  for (const GranuleRange& range : unsynced_.take()) {
    const Status status = file_.dirty_again(granule_.bytes_of(range));
    // On the disk they are not yet.
    unsynced_.mark(range);
    if (first_error.is_ok()) first_error = status;
  }
  return first_error;
}

/// Around all granules that could be stored to by a pointer since this was asked last.
GranuleRange CoherentFile::take_within_pointers() noexcept {
  const auto with_present = [this](GranuleRange reach) {
    for (const HostView* view : views_)
      if (view->access() == Access::read_write) reach = around(reach, view->granules());
    return reach;
  };
  {
    const ViewGate::Pass pass(view_gate_);
    if (ended_views_.empty()) return with_present({});
  }
  const ViewGate::Closed closed(view_gate_);
  return with_present(std::exchange(ended_views_, {}));
}

}  // namespace aprime::engine
