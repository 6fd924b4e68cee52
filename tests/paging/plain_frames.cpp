#include "tests/paging/plain_frames.hpp"

#include <algorithm>

#include "tests/explorer/explorer.hpp"

namespace aprime::explored {
namespace {

void note_read(std::span<const std::byte> bytes) noexcept {
  if (Explorer::is_running()) Explorer::running().memory().read(bytes.data(), bytes.size());
}
void note_write(std::span<const std::byte> bytes) noexcept {
  if (Explorer::is_running()) Explorer::running().memory().write(bytes.data(), bytes.size());
}

}  // namespace

void copy_noted(std::span<const std::byte> from, std::span<std::byte> to) noexcept {
  note_read(from);
  note_write(to.first(from.size()));
  std::ranges::copy(from, to.begin());
}

Status PlainFrames::fill(device::FrameBytes to, device::HomePort& home, ByteOffset at) noexcept {
  return home.read(at, part(to));
}
Status PlainFrames::copy_home(device::FrameBytes from, device::HomePort& home, ByteOffset at) noexcept {
  return home.write(at, part(from));
}
Status PlainFrames::zero(device::FrameBytes bytes) noexcept {
  note_write(part(bytes));
  std::ranges::fill(part(bytes), std::byte{0});
  return {};
}
Status PlainFrames::read(device::FrameBytes from, std::span<std::byte> into) noexcept {
  copy_noted(part(from), into);
  return {};
}
Status PlainFrames::write(device::FrameBytes to, std::span<const std::byte> from) noexcept {
  copy_noted(from, part(to));
  return {};
}
Status PlainFrames::copy(device::FrameBytes from, FrameIndex to) noexcept {
  copy_noted(part(from), {address(to), from.size.value});
  return {};
}

}  // namespace aprime::explored
