#include "host/device/leased_frames.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

namespace aprime::device {

namespace {

/// A kernel that runs off the end of device memory in steps of up to this finds a guard and not other memory.
constexpr std::size_t kGuardBytes = std::size_t{64} << 20;

constexpr unsigned kPageBits = 47;

std::size_t bytes_of(ByteCount frame_bytes, FrameCount frames) noexcept {
  return static_cast<std::size_t>(frame_bytes.value * frames.value);
}

}  // namespace

os::Protection LeasedFrames::Frame::permitted() const noexcept {
  if (writers.load(std::memory_order_relaxed) != 0) return os::Protection::read_write;
  return readers.load(std::memory_order_relaxed) != 0 ? os::Protection::read : os::Protection::none;
}

LeasedFrames::LeasedFrames(ByteCount frame_bytes, FrameCount frames)
    : frame_bytes_(frame_bytes),
      frames_(frames.value),
      memory_(bytes_of(frame_bytes, frames)),
      view_(
          [this] {
            TwinMemory::View view = memory_.map_view(kGuardBytes);
            guard_before_ = std::move(view.guard_before);
            guard_after_ = std::move(view.guard_after);
            return std::move(view.memory);
          }(),
          frame_bytes, os::Protection::none, os::Protection::read_write),
      traps_(guard_before_.data(), kGuardBytes + view_.size() + kGuardBytes, *this) {}

Status LeasedFrames::fill(FrameBytes to, HomePort& home, ByteOffset at) noexcept {
  return home.read(at, bytes(to));
}

Status LeasedFrames::copy_home(FrameBytes from, HomePort& home, ByteOffset at) noexcept {
  return home.write(at, bytes(from));
}

Status LeasedFrames::zero(FrameBytes b) noexcept {
  std::memset(bytes(b).data(), 0, bytes(b).size());
  return {};
}

Status LeasedFrames::read(FrameBytes from, std::span<std::byte> into) noexcept {
  std::copy_n(bytes(from).data(), into.size(), into.data());
  return {};
}

Status LeasedFrames::write(FrameBytes to, std::span<const std::byte> from) noexcept {
  std::copy_n(from.data(), from.size(), bytes(to).data());
  return {};
}

Status LeasedFrames::copy(FrameBytes from, FrameIndex to) noexcept {
  const std::span<std::byte> source = bytes(from);
  std::memcpy(bytes({to, ByteCount{0}, from.size}).data(), source.data(), source.size());
  return {};
}

void LeasedFrames::count(FrameIndex first, FrameCount count, Right right, bool open) noexcept {
  for (std::uint64_t at = first.value; at < first.value + count.value; ++at) {
    std::atomic<std::uint32_t>& leases = includes_write(right) ? frames_[at].writers : frames_[at].readers;
    const std::uint32_t before = leases.load(std::memory_order_relaxed);
    assert(open || before != 0);
    leases.store(open ? before + 1 : before - 1, std::memory_order_relaxed);
  }
}

/// Gives the view the protection that the leases permit.
Status LeasedFrames::apply(FrameIndex first, FrameCount count) noexcept {
  const std::uint64_t end = first.value + count.value;
  Status result;
  for (std::uint64_t at = first.value; at < end;) {
    const os::Protection permitted = frames_[at].permitted();
    std::uint64_t next = at + 1;
    while (next < end && frames_[next].permitted() == permitted) ++next;
    const Status status = view_.set(GranuleIndex{at}, GranuleCount{next - at}, permitted);
    if (!status.is_ok()) result = status;
    at = next;
  }
  return result;
}

Status LeasedFrames::open(FrameIndex first, FrameCount frames, Right right) noexcept {
  const sync::Lock lock(mutex_);
  count(first, frames, right, true);
  const Status status = apply(first, frames);
  if (status.is_ok()) return {};
  count(first, frames, right, false);
  static_cast<void>(apply(first, frames));
  return status;
}

void LeasedFrames::close(FrameIndex first, FrameCount frames, Right right) noexcept {
  const sync::Lock lock(mutex_);
  count(first, frames, right, false);
  // Takes rights away, which cannot fail. Where over-protection had taken one that another lease still gives,
  // the view may fail to have it again here; the trap handler then tries once more.
  static_cast<void>(apply(first, frames));
}

bool LeasedFrames::is_leased(FrameIndex first, FrameCount count, Right right) const noexcept {
  const os::Protection least = includes_write(right) ? os::Protection::read_write : os::Protection::read;
  for (std::uint64_t at = first.value; at < first.value + count.value; ++at) {
    if (frames_[at].permitted() >= least) return true;
  }
  return false;
}

void LeasedFrames::label(FrameIndex first, FrameCount count, RegionId region, ByteOffset at) noexcept {
  for (std::uint64_t i = 0; i < count.value; ++i) {
    const std::uint64_t page = (at.value + i * frame_bytes_.value) / os::kPageBytes;
    frames_[first.value + i].label.store((std::uint64_t{region} + 1) << kPageBits | page,
                                         std::memory_order_relaxed);
  }
}

void LeasedFrames::clear_label(FrameIndex first, FrameCount count) noexcept {
  for (std::uint64_t at = first.value; at < first.value + count.value; ++at) {
    frames_[at].label.store(0, std::memory_order_relaxed);
  }
}

os::TrapTarget::Answer LeasedFrames::on_trap(const os::Trap& trap) noexcept {
  if (!on_device_thread()) return Answer::not_mine;
  // Wraps around below the start of the view, so that one comparison finds both guards.
  const auto offset = static_cast<std::uint64_t>(trap.address - view_.data());
  KernelFault fault = explain(offset, trap.write);
  if (offset < view_.size()) {
    const FrameIndex frame{offset / frame_bytes_.value};
    const sync::Lock lock(mutex_);
    if (frames_[frame.value].permitted() >=
        (trap.write ? os::Protection::read_write : os::Protection::read)) {
      // The lease is there, and the view was over-protected.
      const Status status = apply(frame, FrameCount{1});
      if (status.is_ok()) return Answer::resolved;
      fault.kind = fault_elsewhere(FaultReason::refused, 0, trap.write, status).kind;
    }
  }
  stop_trapped_kernel(trap, fault);
  return Answer::resolved;
}

/// \param offset from the start of the view, negative as two's complement
KernelFault LeasedFrames::explain(std::uint64_t offset, bool write) const noexcept {
  if (offset >= view_.size()) return fault_elsewhere(FaultReason::outside_lease, offset, write);
  const Frame& frame = frames_[offset / frame_bytes_.value];
  const std::uint64_t label = frame.label.load(std::memory_order_relaxed);
  if (label == 0) return fault_elsewhere(FaultReason::outside_lease, offset, write);
  const bool read_leased = frame.permitted() == os::Protection::read;
  const std::uint64_t page = label & ((std::uint64_t{1} << kPageBits) - 1);
  return fault_in_file(
      write && read_leased ? FaultReason::store_under_read_lease : FaultReason::outside_lease,
      static_cast<RegionId>((label >> kPageBits) - 1),
      ByteOffset{page * os::kPageBytes + offset % frame_bytes_.value}, write);
}

}  // namespace aprime::device
