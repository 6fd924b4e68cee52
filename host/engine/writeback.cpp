#include <algorithm>
#include <cerrno>
#include <new>
#include <vector>

#include "host/engine/coherent_file.hpp"

namespace aprime::engine {
namespace {

/// Writes home over itself, so that the page cache has it dirty again.
class RewriteIo final : public GranuleIo {
 public:
  RewriteIo(CoherentFile& file) : file_(file), buffer_(std::size_t{2} << 20) {}

  Status on_home(GranuleRange run) noexcept override {
    const ByteRange bytes = file_.granule().bytes_of(run);
    const std::span<std::byte> part(buffer_.data(), std::min<std::size_t>(buffer_.size(), bytes.size.value));
    const Status status = file_.file().read(bytes.first, part);
    return status.is_ok() ? file_.file().write(bytes.first, part) : status;
  }
  Status on_copy(GranuleIndex, device::Region&) noexcept override { return {}; }

 private:
  CoherentFile& file_;
  std::vector<std::byte> buffer_;
};

}  // namespace

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

Status CoherentFile::write_back(GranuleRange range, Patience patience) {
  const std::vector<GranuleRange> runs = dirty_runs(range);
  if (runs.empty()) return {};
  GranuleCount dirty{0};
  for (const GranuleRange& run : runs) dirty.value += run.count.value;
  const trace::Range traced(tracer_, trace::Kind::writeback, granule_.bytes_of(dirty));
  Status first_error;
  for (const GranuleRange& run : runs) {
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
  }
  return first_error;
}

Status CoherentFile::sync(GranuleRange range, AgentId requester) {
  const trace::Range traced(tracer_, trace::Kind::sync);
  // What cannot be recalled is told by the program's own msync.
  if (!requester.is_mount()) static_cast<void>(recall_all(range, Event::writeback));
  const Status written = write_back(range, Patience::wait);
  // One at a time: the kernel reports a failed write to one fdatasync and success to the next, which must not
  // be taken for an answer before the bytes were written again.
  const sync::Lock lock(sync_mutex_);
  if (last_sync_failed_) {
    const Status status = rewrite_unsynced();
    if (!status.is_ok()) return status;
  }
  const std::vector<GranuleRange> covered = unsynced_.take();
  const Status synced = file_.sync();
  last_sync_failed_ = !synced.is_ok();
  if (!synced.is_ok()) {
    for (const GranuleRange& run : covered) unsynced_.mark(run);
    errors_.record(synced);
  }
  return written.is_ok() ? synced : written;
}

Status CoherentFile::come_home() noexcept {
  const GranuleRange all{GranuleIndex{0}, directory_.capacity()};
  try {
    const Status status = write_back(all, Patience::wait);
    if (!status.is_ok()) return status;
    {
      const sync::Lock lock(sync_mutex_);
      if (!last_sync_failed_) return {};
    }
    // With the file goes what is known of it: whoever maps it next would be told that it is on the disk.
    return sync(all);
  } catch (const std::bad_alloc&) {
    return {Errc::resources, ENOMEM, {}};
  }
}

bool CoherentFile::is_home() const noexcept {
  for (std::size_t d = 0; d < devices_.size(); ++d)
    if (devices_[d]->device().frames().has_dirty(regions_[d].id())) return false;
  return true;
}

Status CoherentFile::rewrite_unsynced() {
  RewriteIo io(*this);
  Status first_error;
  for (const GranuleRange& range : unsynced_.take()) {
    // A store by pointer between the read and the write would be lost.
    const Status status = perform(range, {.event = Event::io_write, .io = &io, .shuts_out_host = true});
    if (status.is_ok()) continue;
    unsynced_.mark(range);
    if (first_error.is_ok()) first_error = status;
  }
  return first_error;
}

}  // namespace aprime::engine
