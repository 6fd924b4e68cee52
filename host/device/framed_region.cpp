#include "host/device/framed_region.hpp"

#include <cassert>
#include <utility>

#include "host/device/progress.hpp"

namespace aprime::device {

FramedRegion::FramedRegion(RegionParams params, FrameMemory& memory, ByteCount frame_bytes)
    : Region(std::move(params)),
      memory_(memory),
      frames_are_full_(params_.frames_per_granule.value * frame_bytes.value ==
                       params_.granule.bytes().value) {}

template <class Operation>
Progress FramedRegion::by_contiguous_frames(GranuleRange run, const Operation& operation) noexcept {
  GranuleCount done{0};
  while (done < run.count) {
    const Progress part =
        in_one_go_or_each(contiguous_part({run.first + done, run.end() - (run.first + done)}), operation);
    done.value += part.done.value;
    if (!part.status.is_ok()) return {done, part.status};
  }
  return {done, {}};
}

GranuleRange FramedRegion::contiguous_part(GranuleRange run) const noexcept {
  return frames_are_full_ ? in_a_row(run) : GranuleRange{run.first, GranuleCount{1}};
}

Progress FramedRegion::fill(GranuleRange run, HomePort& home) noexcept {
  return by_contiguous_frames(run, [&](GranuleRange r) {
    const Status status = memory_.fill(bytes_of(r), home, params_.granule.offset_of(r.first));
    if (status.is_ok()) label(r);
    return status;
  });
}

Progress FramedRegion::adopt(GranuleRange run) noexcept {
  return by_contiguous_frames(run, [&](GranuleRange r) {
    const Status status = memory_.zero(bytes_of(r));
    if (status.is_ok()) label(r);
    return status;
  });
}

Progress FramedRegion::protect(GranuleRange run) noexcept {
  assert(!any_leased(run, Right::read_write) && "a write lease is open");
  return {run.count, {}};
}

Progress FramedRegion::release(GranuleRange run) noexcept {
  assert(!any_leased(run, Right::read) && "a lease is open");
  for (GranuleIndex g = run.first; g < run.end(); ++g.value) {
    memory_.clear_label(frame_of(g), params_.frames_per_granule);
  }
  return {run.count, {}};
}

Progress FramedRegion::copy_home(GranuleRange run, HomePort& home) noexcept {
  return by_contiguous_frames(run, [&](GranuleRange r) {
    return memory_.copy_home(bytes_of(r), home, params_.granule.offset_of(r.first));
  });
}

Status FramedRegion::read_copy(GranuleIndex g, ByteCount offset, std::span<std::byte> into) noexcept {
  return memory_.read({frame_of(g), offset, ByteCount{into.size()}}, into);
}

Status FramedRegion::write_copy(GranuleIndex g, ByteCount offset, std::span<const std::byte> from) noexcept {
  assert(!any_leased({g, GranuleCount{1}}, Right::read) && "a kernel could see half of it");
  return memory_.write({frame_of(g), offset, ByteCount{from.size()}}, from);
}

Status FramedRegion::move(GranuleRange row, FrameIndex to) noexcept {
  assert(!any_leased(row, Right::read) && "a kernel has the old address");
  const Progress p = by_contiguous_frames(row, [&](GranuleRange r) {
    return memory_.copy(bytes_of(r), FrameIndex{to.value + frames_of(r.first - row.first).value});
  });
  if (!p.status.is_ok()) return p.status;
  memory_.clear_label(frame_of(row.first), frames_of(row.count));
  for (std::uint64_t i = 0; i < row.count.value; ++i)
    memory_.label(FrameIndex{to.value + frames_of(GranuleCount{i}).value}, params_.frames_per_granule,
                  params_.id, params_.granule.offset_of(row.first + GranuleCount{i}));
  return {};
}

Status FramedRegion::open_lease(GranuleRange granules, Right right) noexcept {
  const Progress opened = by_contiguous_frames(
      granules, [&](GranuleRange r) { return memory_.open(frame_of(r.first), frames_of(r.count), right); });
  if (!opened.status.is_ok()) close_lease({granules.first, opened.done}, right);
  return opened.status;
}

void FramedRegion::close_lease(GranuleRange granules, Right right) noexcept {
  static_cast<void>(by_contiguous_frames(granules, [&](GranuleRange r) {
    memory_.close(frame_of(r.first), frames_of(r.count), right);
    return Status{};
  }));
}

void FramedRegion::label(GranuleRange r) noexcept {
  memory_.label(frame_of(r.first), frames_of(r.count), params_.id, params_.granule.offset_of(r.first));
}

bool FramedRegion::any_leased(GranuleRange run, Right right) const noexcept {
  for (GranuleIndex g = run.first; g < run.end(); ++g.value) {
    if (memory_.is_leased(frame_of(g), params_.frames_per_granule, right)) return true;
  }
  return false;
}

}  // namespace aprime::device
