#include "host/device/demand_region.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <vector>

#include "host/device/device_fault.hpp"

namespace aprime::device {

namespace {

using detail::PageEntry;
using detail::PagingOp;

/// Does `by_commands` for the first `paged` granules of the run and `directly` for the others.
template <class ByCommands, class Directly>
Progress in_two_parts(GranuleRange run, std::uint64_t paged, const ByCommands& by_commands,
                      const Directly& directly) noexcept {
  const GranuleCount first{std::min(run.count.value, paged)};
  Progress p{GranuleCount{0}, {}};
  if (!(first == GranuleCount{0})) p = by_commands(GranuleRange{run.first, first});
  if (!p.status.is_ok() || p.done == run.count) return p;
  const Progress rest = directly(GranuleRange{run.first + first, run.count - first});
  return {GranuleCount{p.done.value + rest.done.value}, rest.status};
}

}  // namespace

DemandRegion::DemandRegion(RegionParams params, FrameMemory& memory, ByteCount frame_bytes, FramePool& pool,
                           PagingSource& source, FaultHandler& handler)
    : FramedRegion(std::move(params), memory, frame_bytes),
      frame_bytes_(frame_bytes),
      pool_(pool),
      source_(source),
      handler_(handler) {
  rights_.reserve(params_.granules.value);
}

DemandRegion::~DemandRegion() {
  if (!table_.empty()) source_.paging_memory().free(reinterpret_cast<std::byte*>(table_.data()));
}

Progress DemandRegion::fill(GranuleRange run, HomePort& home) noexcept {
  const std::shared_lock shared(gate_);
  const Progress p = in_two_parts(
      run, paged_count(run), [&](GranuleRange r) { return fill_by_commands(r, home); },
      [&](GranuleRange r) { return FramedRegion::fill(r, home); });
  note_rights(p, run, PageEntry::kRead);
  return p;
}

Progress DemandRegion::adopt(GranuleRange run) noexcept {
  const std::shared_lock shared(gate_);
  const Progress p = in_two_parts(
      run, paged_count(run),
      [&](GranuleRange r) {
        const Status status = copy(PagingOp::zero, r, {});
        if (!status.is_ok()) return Progress{GranuleCount{0}, status};
        label(r);
        return publish(r, Right::read_write);
      },
      [&](GranuleRange r) { return FramedRegion::adopt(r); });
  note_rights(p, run, PageEntry::kReadWrite);
  return p;
}

Progress DemandRegion::grant_write(GranuleRange run) noexcept {
  const std::shared_lock shared(gate_);
  const Progress p = in_two_parts(
      run, paged_count(run), [&](GranuleRange r) { return publish(r, Right::read_write); },
      [&](GranuleRange r) { return FramedRegion::grant_write(r); });
  note_rights(p, run, PageEntry::kReadWrite);
  return p;
}

Progress DemandRegion::take_rights(PagingOp op, GranuleRange run, Asking how) noexcept {
  const std::shared_lock shared(gate_);
  const std::uint64_t paged = paged_count(run);
  if (how == Asking::not_at_all && paged != 0)
    return {GranuleCount{0}, {Errc::resources, EAGAIN, params_.granule.offset_of(run.first)}};
  const bool all = op == PagingOp::revoke;
  const Progress p = in_two_parts(
      run, paged,
      [&](GranuleRange r) {
        const Progress taken = take(op, r, how);
        if (all) static_cast<void>(FramedRegion::release({r.first, taken.done}));
        return taken;
      },
      [&](GranuleRange r) { return all ? FramedRegion::release(r) : FramedRegion::protect(r); });
  note_rights(p, run, all ? 0 : PageEntry::kRead);
  return p;
}

Progress DemandRegion::copy_home(GranuleRange run, HomePort& home) noexcept {
  const std::shared_lock shared(gate_);
  return in_two_parts(
      run, paged_count(run), [&](GranuleRange r) { return copy_home_by_commands(r, home); },
      [&](GranuleRange r) { return FramedRegion::copy_home(r, home); });
}

Status DemandRegion::read_copy(GranuleIndex g, ByteCount offset, std::span<std::byte> into) noexcept {
  const std::shared_lock shared(gate_);
  if (!is_paged(g)) return FramedRegion::read_copy(g, offset, into);
  const StagingPool::Lease staging = source_.paging().staging().lease();
  std::byte* const bytes = staging.first_half().data();
  const Status status = read_by_commands(g, offset.value, offset.value + into.size(), bytes);
  if (status.is_ok()) std::memcpy(into.data(), bytes + offset.value % detail::kCopyWordBytes, into.size());
  return status;
}

Status DemandRegion::write_copy(GranuleIndex g, ByteCount offset, std::span<const std::byte> from) noexcept {
  const std::shared_lock shared(gate_);
  if (!is_paged(g)) return FramedRegion::write_copy(g, offset, from);
  const GranuleRange granule{g, GranuleCount{1}};
  // All or nothing: who loads meanwhile faults, and waits for the granule.
  Status status = take(PagingOp::revoke, granule, Asking::until_they_have).status;
  if (status.is_ok()) status = write_part(g, offset.value, from);
  // If the frame cannot be opened, the next fault tries again (`restore`).
  if (status.is_ok()) static_cast<void>(publish(granule, Right::read));
  return status;
}

ByteCount DemandRegion::copied_at_once() const noexcept {
  const std::shared_lock shared(gate_);
  return in_session_ ? kCopiedAtOnceMin : FramedRegion::copied_at_once();
}

Status DemandRegion::restore(GranuleRange run, bool write) noexcept {
  const std::shared_lock shared(gate_);
  const std::uint64_t wanted = write ? PageEntry::kReadWrite : PageEntry::kRead;
  for (std::uint64_t i = 0; i < paged_count(run); ++i) {
    const GranuleRange one{run.first + GranuleCount{i}, GranuleCount{1}};
    // Of many threads that wait for neighbours, one asked first, and the others have been answered with it.
    if ((rights_of(one.first) & wanted) == wanted && !is_unsure_of(one.first)) continue;
    const Status status = publish(one, write ? Right::read_write : Right::read).status;
    if (!status.is_ok()) return status;
  }
  return {};
}

Status DemandRegion::reserve(GranuleCount granules) noexcept {
  try {
    rights_.reserve(granules.value);
  } catch (const Error& error) {
    return {error.code(), error.system_error(), {}};
  }
  return FramedRegion::reserve(granules);
}

detail::PagedWindow DemandRegion::paged_window() {
  Paging& paging = source_.paging();
  const std::lock_guard alone(gate_);
  const std::uint64_t granules = frames_.capacity();
  if (table_.size() < granules) {
    auto* const memory =
        source_.paging_memory().device(static_cast<std::size_t>(granules) * sizeof(std::uint64_t));
    if (!table_.empty()) source_.paging_memory().free(reinterpret_cast<std::byte*>(table_.data()));
    table_ = {reinterpret_cast<std::uint64_t*>(memory), static_cast<std::size_t>(granules)};
  }
  return {.base = nullptr,
          .entries = table_.data(),
          .frames = memory_.address(FrameIndex{0}),
          .unpinned_frames = paging.frames(),
          .port = paging.port(),
          .region = params_.id,
          .log2_granule = static_cast<std::uint8_t>(std::countr_zero(params_.granule.bytes().value)),
          .log2_frame = static_cast<std::uint8_t>(std::countr_zero(frame_bytes_.value))};
}

void DemandRegion::prepare_session() {
  std::unique_lock alone(gate_);
  PagingMemory& memory = source_.paging_memory();
  Status status = memory.clear(reinterpret_cast<std::byte*>(table_.data()));
  std::vector<FrameOwner> owners;
  // As many as there can be when the session ends, where nobody could be told that memory ran out.
  owners.reserve(
      std::min<std::size_t>(table_.size(), pool_.capacity().value / params_.frames_per_granule.value));
  pool_.collect(params_.id, {GranuleIndex{0}, GranuleCount{table_.size()}}, false, owners);
  std::sort(owners.begin(), owners.end(),
            [](const FrameOwner& a, const FrameOwner& b) { return a.granule < b.granule; });
  std::size_t opened = 0;
  std::vector<std::uint64_t> entries;
  entries.reserve(owners.size());
  while (opened < owners.size() && status.is_ok()) {
    // Neighbours in one go.
    const GranuleIndex first = owners[opened].granule;
    entries.clear();
    while (opened < owners.size() && owners[opened].granule == first + GranuleCount{entries.size()}) {
      const GranuleIndex g = owners[opened].granule;
      status = open_frames(g, rights_of(g));
      if (!status.is_ok()) break;
      entries.push_back(entry_of(g));
      // What device threads will have is what is noted.
      rights_[g.value].store(static_cast<std::uint32_t>(rights_of(g)), std::memory_order_relaxed);
      ++opened;
    }
    if (status.is_ok())
      status = memory.upload(reinterpret_cast<std::byte*>(&table_[first.value]),
                             std::as_bytes(std::span<const std::uint64_t>(entries)));
  }
  if (!status.is_ok()) {
    while (opened > 0) {
      const GranuleIndex g = owners[--opened].granule;
      close_frames(g, rights_of(g));
    }
    throw Error(status.code, params_.path + ": the device's page table cannot be set up", params_.path,
                status.system_error);
  }
  owners_ = std::move(owners);
  alone.release();
}

void DemandRegion::enter_session() noexcept {
  in_session_ = true;
  gate_.unlock();
}

void DemandRegion::cancel_session() noexcept {
  for (const FrameOwner& owner : owners_) close_frames(owner.granule, rights_of(owner.granule));
  owners_ = {};
  gate_.unlock();
}

void DemandRegion::leave_session() noexcept {
  const std::lock_guard alone(gate_);
  in_session_ = false;
  owners_.clear();
  pool_.collect(params_.id, {GranuleIndex{0}, GranuleCount{table_.size()}}, false, owners_);
  for (const FrameOwner& owner : owners_) close_frames(owner.granule, rights_of(owner.granule));
  owners_ = {};
}

Status DemandRegion::serve(GranuleIndex g, bool write) noexcept {
  return handler_.on_device_fault(*this, g, write);
}

std::uint64_t DemandRegion::paged_count(GranuleRange run) const noexcept {
  return in_session_ && run.first.value < table_.size()
             ? std::min<std::uint64_t>(run.count.value, table_.size() - run.first.value)
             : 0;
}

void DemandRegion::note_rights(const Progress& p, GranuleRange run, std::uint64_t rights) noexcept {
  for (std::uint64_t i = 0; i < p.done.value; ++i) {
    std::atomic<std::uint32_t>& noted = rights_[run.first.value + i];
    const std::uint64_t unsure = noted.load(std::memory_order_relaxed) & PageEntry::kRevoking;
    noted.store(static_cast<std::uint32_t>(rights | unsure), std::memory_order_relaxed);
  }
}

std::uint64_t DemandRegion::rights_of(GranuleIndex g) const noexcept {
  return rights_[g.value].load(std::memory_order_relaxed) & PageEntry::kReadWrite;
}

void DemandRegion::note_unsure(GranuleIndex g) noexcept {
  rights_[g.value].fetch_or(static_cast<std::uint32_t>(PageEntry::kRevoking), std::memory_order_relaxed);
}

bool DemandRegion::is_unsure_of(GranuleIndex g) const noexcept {
  return (rights_[g.value].load(std::memory_order_relaxed) & PageEntry::kRevoking) != 0;
}

std::uint64_t DemandRegion::entry_of(GranuleIndex g) const noexcept {
  return rights_of(g) == 0 ? 0 : frame_of(g).value << PageEntry::kFrameShift | rights_of(g);
}

std::uint64_t DemandRegion::frame_at(GranuleIndex g) const noexcept {
  return frame_of(g).value * frame_bytes_.value;
}

Status DemandRegion::open_frames(GranuleIndex g, std::uint64_t rights) noexcept {
  Status status;
  if ((rights & PageEntry::kRead) != 0)
    status = memory_.open(frame_of(g), params_.frames_per_granule, Right::read);
  if (!status.is_ok() || (rights & PageEntry::kWrite) == 0) return status;
  status = memory_.open(frame_of(g), params_.frames_per_granule, Right::read_write);
  if (!status.is_ok()) close_frames(g, rights & PageEntry::kRead);
  return status;
}

void DemandRegion::close_frames(GranuleIndex g, std::uint64_t rights) noexcept {
  if ((rights & PageEntry::kWrite) != 0)
    memory_.close(frame_of(g), params_.frames_per_granule, Right::read_write);
  if ((rights & PageEntry::kRead) != 0) memory_.close(frame_of(g), params_.frames_per_granule, Right::read);
}

LaunchResult run_on_demand(Paging& paging, std::span<Region* const> regions,
                           const std::function<LaunchResult()>& run) {
  std::vector<PagedRegion*> paged;
  for (Region* region : regions) paged.push_back(&static_cast<DemandRegion*>(region)->paged());
  paging.begin(paged);
  LaunchResult result;
  try {
    result = run();
  } catch (...) {
    paging.end(false);
    throw;
  }
  paging.end(result.completed());
  const std::optional<Paging::Failure> failure = paging.failure();
  if (failure && (result.completed() || result.outcome == LaunchOutcome::fault)) {
    result.outcome = LaunchOutcome::fault;
    result.fault =
        fault_in_file(failure->status ? FaultReason::refused : FaultReason::outside_span, failure->region,
                      failure->at, failure->write, failure->status.value_or(Status{}));
  }
  return result;
}

}  // namespace aprime::device
