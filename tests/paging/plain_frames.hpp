#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "host/device/demand_region.hpp"

namespace aprime::explored {

/// What the standard library copies is not seen by who looks at plain accesses.
void copy_noted(std::span<const std::byte> from, std::span<std::byte> to) noexcept;

/// Frames of one page, in memory that everybody may touch.
class PlainFrames final : public device::FrameMemory {
 public:
  explicit PlainFrames(std::size_t frames) : bytes_(frames * kBytes) {}

  std::byte* address(FrameIndex frame) const noexcept override { return &bytes_[frame.value * kBytes]; }
  Status fill(device::FrameBytes to, device::HomePort& home, ByteOffset at) noexcept override;
  Status copy_home(device::FrameBytes from, device::HomePort& home, ByteOffset at) noexcept override;
  Status zero(device::FrameBytes bytes) noexcept override;
  Status read(device::FrameBytes from, std::span<std::byte> into) noexcept override;
  Status write(device::FrameBytes to, std::span<const std::byte> from) noexcept override;
  Status copy(device::FrameBytes from, FrameIndex to) noexcept override;
  Status open(FrameIndex, FrameCount, Right) noexcept override { return {}; }
  void close(FrameIndex, FrameCount, Right) noexcept override {}
  bool is_leased(FrameIndex, FrameCount, Right) const noexcept override { return false; }
  void label(FrameIndex, FrameCount, device::RegionId, ByteOffset) noexcept override {}
  void clear_label(FrameIndex, FrameCount) noexcept override {}

  std::span<const std::byte> bytes() const noexcept { return bytes_; }

  static constexpr std::size_t kBytes = 4096;

 private:
  std::span<std::byte> part(const device::FrameBytes& of) const noexcept {
    return std::span(bytes_).subspan(of.first.value * kBytes + of.offset.value, of.size.value);
  }

  mutable std::vector<std::byte> bytes_;
};

}  // namespace aprime::explored
