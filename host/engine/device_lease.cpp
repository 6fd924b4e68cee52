#include "host/engine/device_lease.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <numeric>
#include <optional>
#include <thread>

#include "host/engine/failure.hpp"

namespace aprime::engine {
namespace {

using Clock = std::chrono::steady_clock;

/// How long a launch waits for device memory that other leases hold.
constexpr std::chrono::seconds kMemoryWaitMax{30};
/// How long it does so with leases in its hands: what takes up the room may wait for those.
constexpr std::chrono::milliseconds kMemoryWaitHoldingMax{20};
constexpr std::chrono::microseconds kRetryPause{100};
/// How often a granule that is busy is asked to leave before another place is tried.
constexpr int kEvictTriesMax = 64;

Right stronger(Right a, Right b) noexcept {
  if (a == b) return a;
  return Right::read_write;  // one reads what the other stores: the bytes must be there
}

/// The granules of `bytes` that a write-only lease replaces whole. The last granule counts as whole if the
/// range reaches the end of the file.
GranuleRange whole_granules(GranuleSize granule, ByteRange bytes, ByteCount file_size) noexcept {
  const std::uint64_t size = granule.bytes().value;
  const std::uint64_t first = (bytes.first.value + size - 1) / size;
  const std::uint64_t end = bytes.end().value >= file_size.value
                                ? granule.count_for(bytes.end() - ByteOffset{0}).value
                                : bytes.end().value / size;
  return {GranuleIndex{first}, GranuleCount{end > first ? end - first : 0}};
}

bool overlap(const LeasedRange& a, const LeasedRange& b) noexcept {
  return a.file == b.file && a.granules.first < b.granules.end() && b.granules.first < a.granules.end();
}

bool overlaps_any(const LeasedRange& a, std::span<const LeasedRange> others) noexcept {
  return std::any_of(others.begin(), others.end(), [&](const LeasedRange& b) { return overlap(a, b); });
}

template <class Ranges>
ByteCount bytes_of(const Ranges& ranges) noexcept {
  return std::accumulate(ranges.begin(), ranges.end(), ByteCount{0},
                         [](ByteCount sum, const LeasedRange& r) { return sum + r.bytes.size; });
}

}  // namespace

DeviceLeases::DeviceLeases(DeviceSlot& slot, std::span<const FileRequest> requests)
    : DeviceLeases(slot, requests, None{}) {
  std::vector<Held> wanted = merged(requests);
  const FrameCount frames = frames_of_all(wanted);
  const trace::Range range(slot_.tracer(), trace::Kind::lease, bytes_of(wanted));
  try {
    if (!acquire_each(wanted)) acquire_packed(wanted, frames);
    gates_.leases_are_taken();
  } catch (...) {
    release_all();
    throw;
  }
}

std::unique_ptr<DeviceLeases> DeviceLeases::beside(std::span<const LeasedRange> running, DeviceSlot& slot,
                                                   std::span<const FileRequest> requests) noexcept {
  // That may have to wait.
  const auto hides_new_size = [](const FileRequest& r) { return r.file->hides_new_size(r.range); };
  if (std::any_of(requests.begin(), requests.end(), hides_new_size)) return nullptr;
  try {
    std::unique_ptr<DeviceLeases> leases(new DeviceLeases(slot, requests, None{}));
    leases->running_ = running;
    std::vector<Held> wanted = merged(requests);
    for (const Held& w : wanted)
      if (!leases->is_compatible(w)) return nullptr;
    const trace::Range range(slot.tracer(), trace::Kind::lease, bytes_of(wanted));
    const bool has_all = leases->acquire_each(wanted);
    leases->running_.reset();
    leases->gates_.leases_are_taken();
    return has_all ? std::move(leases) : nullptr;
  } catch (const std::exception&) {
    return nullptr;
  }
}

std::vector<DeviceLeases::Held> DeviceLeases::merged(std::span<const FileRequest> requests) {
  std::vector<Held> wanted;
  for (const FileRequest& r : requests)
    if (!r.range.empty() && !r.on_demand)
      wanted.push_back({{r.file.get(), r.range, r.file->granule().covering(r.range), r.right}});
  std::sort(wanted.begin(), wanted.end(), [](const Held& a, const Held& b) {
    if (a.file != b.file) return std::less<>{}(a.file, b.file);
    return a.bytes.first < b.bytes.first;
  });
  std::vector<Held> merged;
  for (const Held& w : wanted) {
    if (!merged.empty() && merged.back().file == w.file && w.granules.first < merged.back().granules.end()) {
      Held& m = merged.back();
      // Bytes between two ranges that share a granule belong to neither, so they must be there.
      const bool has_gap = m.bytes.end() < w.bytes.first;
      const std::uint64_t bytes_end = std::max(m.bytes.end().value, w.bytes.end().value);
      m.bytes.size = ByteOffset{bytes_end} - m.bytes.first;
      m.granules = m.file->granule().covering(m.bytes);
      m.right = has_gap && includes_write(m.right) ? Right::read_write : stronger(m.right, w.right);
    } else {
      merged.push_back(w);
    }
  }
  // What the kernel may do on demand where it has a lease, it has the right to: a fault there would wait for
  // the lease.
  for (Held& m : merged)
    for (const FileRequest& r : requests)
      if (r.on_demand && !r.range.empty() &&
          overlap(m, {r.file.get(), r.range, m.file->granule().covering(r.range), r.right}))
        m.right = stronger(m.right, r.right);
  return merged;
}

FrameCount DeviceLeases::frames_of_all(const std::vector<Held>& wanted) const {
  std::uint64_t frames = 0;
  for (const Held& w : wanted) frames += frames_of(w).value;
  const std::uint64_t capacity = slot_.device().frames().capacity().value;
  if (frames <= capacity) return FrameCount{frames};
  const std::uint64_t frame_bytes = slot_.device().frame_bytes().value;
  throw Error(
      Errc::device_memory,
      fmt::format(
          "device memory is too small for what the launch leases: {} bytes at once, and the device has {}; "
          "give it more memory (DeviceOptions::memory, --device-memory) or lease less at once",
          frames * frame_bytes, capacity * frame_bytes),
      wanted.front().file->path());
}

DeviceLeases::~DeviceLeases() { release_all(); }

void DeviceLeases::release_all() noexcept {
  for (const Held& h : held_) release(h);
  held_.clear();
}

bool DeviceLeases::acquire_each(std::vector<Held>& wanted) {
  held_.reserve(wanted.size());  // once granules are pinned, nothing may keep them from being noted
  for (Held& w : wanted) {
    if (acquire(w)) continue;
    release_all();
    return false;
  }
  return true;
}

void DeviceLeases::acquire_packed(std::vector<Held>& wanted, FrameCount total) {
  // Ranges of large granules first, so that each begins at a multiple of its granule; taken in ascending
  // order all the same.
  std::vector<std::size_t> by_step(wanted.size());
  std::iota(by_step.begin(), by_step.end(), std::size_t{0});
  std::stable_sort(by_step.begin(), by_step.end(),
                   [&](std::size_t a, std::size_t b) { return step_of(wanted[a]) > step_of(wanted[b]); });
  std::vector<std::uint64_t> begins(wanted.size());
  std::uint64_t end = 0;
  for (const std::size_t i : by_step) {
    begins[i] = end;
    end += frames_of(wanted[i]).value;
  }
  in_reserved_run(wanted[by_step.front()], total, [&](FrameIndex first, Status& why) {
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (place_in(wanted[i], FrameIndex{first.value + begins[i]}, why)) {
        held_.push_back(wanted[i]);
        continue;
      }
      release_all();
      return false;
    }
    return true;
  });
}

detail::LeasedMemory DeviceLeases::memory_of(const FileRequest& request) const noexcept {
  for (const Held& h : held_)
    if (h.file == request.file.get() && request.range.first >= h.bytes.first &&
        request.range.end() <= h.bytes.end()) {
      const ByteOffset start = h.file->granule().offset_of(h.granules.first);
      device::Region& region = h.file->region(slot_.number());
      std::byte* const data = slot_.device().info().hardware_paged
                                  ? region.window() + start.value
                                  : slot_.device().frame_address(region.frame_of(h.granules.first));
      return {data + (request.range.first - start).value, static_cast<std::size_t>(request.range.size.value)};
    }
  return {nullptr, 0};
}

bool DeviceLeases::acquire(Held& held) {
  CoherentFile& file = *held.file;
  const os::File::SizeResult size = file.file().size();
  throw_if_failed(size.status, file.path(), "lease");
  if (held.bytes.end().value > size.size.value)
    throw_if_failed({Errc::out_of_range, 0, ByteOffset{std::max(size.size.value, held.bytes.first.value)}},
                    file.path(), "lease");
  if (slot_.device().info().hardware_paged) {
    const Progress p = pin(held, nullptr);
    if (!p.status.is_ok()) file.unpin({held.granules.first, p.done}, slot_.agent());
    throw_if_failed(p.status, file.path(), "lease");
  } else if (!is_contiguous(held) || !acquire_in_place(held)) {
    // What was shared has left since: the other launch has ended, and there is no need for haste.
    const bool was_shared = running_ && overlaps_any(held, *running_);
    if (was_shared || !acquire_placed(held)) return false;
  }
  held_.push_back(held);
  return true;
}

bool DeviceLeases::is_compatible(const LeasedRange& wanted) const noexcept {
  return std::all_of(running_->begin(), running_->end(), [&](const LeasedRange& r) {
    return !overlap(wanted, r) ||
           (r.granules.first <= wanted.granules.first && wanted.granules.end() <= r.granules.end() &&
            (includes_write(r.right) || !includes_write(wanted.right)));
  });
}

void DeviceLeases::open() {
  for (Held& h : held_) {
    const Status status = slot_.device().open_lease(h.file->region(slot_.number()), h.granules, h.right);
    throw_if_failed(status, h.file->path(), "open a lease");
    h.is_open = true;
  }
}

FrameCount DeviceLeases::step_of(const Held& held) const noexcept {
  return held.file->region(slot_.number()).params().frames_per_granule;
}

FrameCount DeviceLeases::frames_of(const Held& held) const noexcept {
  return FrameCount{held.granules.count.value * step_of(held).value};
}

bool DeviceLeases::is_contiguous(const Held& held) const noexcept {
  device::Region& region = held.file->region(slot_.number());
  const std::uint64_t step = region.params().frames_per_granule.value;
  if (!region.has_frame(held.granules.first)) return false;
  const std::uint64_t first = region.frame_of(held.granules.first).value;
  for (std::uint64_t i = 1; i < held.granules.count.value; ++i) {
    const GranuleIndex g = held.granules.first + GranuleCount{i};
    if (!region.has_frame(g) || region.frame_of(g).value != first + i * step) return false;
  }
  return true;
}

bool DeviceLeases::acquire_in_place(Held& held) {
  const Progress p = pin(held, nullptr);
  // Between the look and the pin a granule may have left and come back elsewhere.
  if (p.status.is_ok() && is_contiguous(held)) return true;
  held.file->unpin({held.granules.first, p.done}, slot_.agent());
  throw_if_failed(p.status, held.file->path(), "lease");
  return false;
}

bool DeviceLeases::acquire_placed(Held& held) {
  return in_reserved_run(held, frames_of(held),
                         [&](FrameIndex first, Status& why) { return place_in(held, first, why); });
}

template <class Use>
bool DeviceLeases::in_reserved_run(const Held& aligned_for, FrameCount count, Use use) {
  device::FramePool& pool = slot_.device().frames();
  const auto start = Clock::now();
  for (;;) {
    const std::optional<FrameIndex> first = pool.reserve_run(count, step_of(aligned_for));
    Status why;
    bool is_done = false;
    try {
      is_done = first && use(*first, why);
    } catch (...) {
      pool.cancel_run(*first, count);
      slot_.trace_resident();
      throw;
    }
    // Also after a success: pins hold the frames now.
    if (first) {
      pool.cancel_run(*first, count);
      slot_.trace_resident();
    }
    if (is_done) return true;
    // It may be the running launch that is in the way.
    if (running_) return false;
    const auto waited = Clock::now() - start;
    // What this launch has leased already lies in the way itself, or whoever does may wait for it.
    if (!held_.empty() && (!first || waited > kMemoryWaitHoldingMax)) return false;
    const std::string& path = aligned_for.file->path();
    const ByteOffset at = aligned_for.bytes.first;
    // What cannot be written home stays where it is, and that is the caller's answer.
    if (!why.is_ok())
      throw_if_failed({why.code, why.system_error, at, why.reason}, path, "make room for a lease");
    if (waited > kMemoryWaitMax) throw_if_failed({Errc::device_memory, 0, at}, path, "lease");
    std::this_thread::sleep_for(kRetryPause);
  }
}

bool DeviceLeases::place_in(const Held& held, FrameIndex first, Status& why) {
  if (!clear_window(held, first, frames_of(held), why)) return false;
  const Progress p = pin(held, &first);
  if (p.status.is_ok()) return true;
  held.file->unpin({held.granules.first, p.done}, slot_.agent());
  throw_if_failed(p.status, held.file->path(), "lease");
  return false;
}

bool DeviceLeases::clear_window(const Held& held, FrameIndex first, FrameCount count, Status& why) noexcept {
  device::Region& region = held.file->region(slot_.number());
  const std::uint64_t step = region.params().frames_per_granule.value;
  const FrameIndex end{first.value + count.value};
  device::FramePool& pool = slot_.device().frames();
  for (FrameIndex frame = pool.next_owned(first, end); frame < end;
       frame = pool.next_owned(FrameIndex{frame.value + 1}, end)) {
    const std::uint64_t i = frame.value - first.value;
    for (int tries = 0;; ++tries) {
      const auto owner = pool.owner_at(frame);
      if (!owner) break;
      const bool is_home_already = owner->region == region.params().id && i % step == 0 &&
                                   owner->granule == held.granules.first + GranuleCount{i / step};
      if (is_home_already) break;
      if (tries >= kEvictTriesMax) return false;
      if (tries > 0) std::this_thread::sleep_for(kRetryPause);
      const DeviceSlot::FileUse use(slot_, frame, *owner);
      if (use.get() != nullptr) why = use.get()->evict(slot_.number(), owner->granule, Patience::briefly);
    }
  }
  return true;
}

Progress DeviceLeases::pin(const Held& held, const FrameIndex* placement) {
  CoherentFile& file = *held.file;
  Demand demand{.event = held.right == Right::read ? Event::read : Event::write,
                .requester = slot_.agent(),
                .pin = true,
                .placement = placement,
                .placed_from = held.granules.first,
                .overwritten_end = held.bytes.end()};
  if (held.right != Right::write) {
    // What lies in its place already needs no copying.
    const GranuleCount by_turns =
        placement != nullptr ? file.pin_by_turns(held.granules, demand) : GranuleCount{0};
    const Progress rest =
        file.perform_counted({held.granules.first + by_turns, held.granules.count - by_turns}, demand);
    return {GranuleCount{by_turns.value + rest.done.value}, rest.status};
  }

  const os::File::SizeResult size = file.file().size();
  if (!size.status.is_ok()) return {GranuleCount{0}, size.status};
  const GranuleRange whole = whole_granules(file.granule(), held.bytes, size.size);
  GranuleCount done{0};
  while (done.value < held.granules.count.value) {
    const GranuleIndex g = held.granules.first + done;
    const bool inside = g >= whole.first && g < whole.end();
    const GranuleIndex end = inside                                                 ? whole.end()
                             : g < whole.first && whole.first < held.granules.end() ? whole.first
                                                                                    : held.granules.end();
    demand.event = inside ? Event::overwrite : Event::write;
    const Progress p = file.perform_counted({g, end - g}, demand);
    done.value += p.done.value;
    if (!p.status.is_ok()) return {done, p.status};
  }
  return {done, {}};
}

void DeviceLeases::release(const Held& held) noexcept {
  if (held.is_open) slot_.device().close_lease(held.file->region(slot_.number()), held.granules, held.right);
  held.file->unpin(held.granules, slot_.agent());
}

void adopt_ahead(DeviceSlot& slot, const FileRequest& request, std::span<const FileRequest> all) noexcept {
  CoherentFile& file = *request.file;
  const bool is_read_too = std::any_of(all.begin(), all.end(), [&](const FileRequest& other) {
    return other.file == request.file && other.right != Right::write &&
           other.range.first < request.range.end() && request.range.first < other.range.end();
  });
  if (is_read_too) return;
  const os::File::SizeResult size = file.file().size();
  if (!size.status.is_ok() || request.range.end().value > size.size.value) return;
  const GranuleRange whole = whole_granules(file.granule(), request.range, size.size);
  const std::uint64_t room = slot.device().frames().free_count().value /
                             file.region(slot.number()).params().frames_per_granule.value;
  const GranuleRange now{whole.first, GranuleCount{std::min(room, whole.count.value)}};
  // A failure here costs a fill later and nothing else.
  static_cast<void>(file.perform(
      now, {.event = Event::overwrite, .requester = slot.agent(), .overwritten_end = request.range.end()}));
}

}  // namespace aprime::engine
