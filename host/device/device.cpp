#include "host/device/device.hpp"

#include <fmt/format.h>

#include <limits>

#include "aprime/detail/paging.hpp"

namespace aprime::device {

FrameCount frames_in_budget(const DeviceOptions& options, ByteCount frame_bytes) {
  if (!GranuleSize::is_valid(frame_bytes)) {
    throw Error(Errc::invalid_argument,
                fmt::format("a frame of {} bytes: it must be a power of two between 4 KiB and 2 MiB",
                            frame_bytes.value));
  }
  const FrameCount frames{options.memory.value / frame_bytes.value};
  if (frames.value < kFramesMin) {
    throw Error(
        Errc::invalid_argument,
        fmt::format("DeviceOptions::memory: {} bytes are too few for granules of {} bytes; a device "
                    "needs at least {} ({} granules)",
                    options.memory.value, frame_bytes.value, kFramesMin * frame_bytes.value, kFramesMin));
  }
  // What page-table entries can number. Elsewhere frame numbers have 32 bits, of which one value stands for
  // none.
  static_assert(detail::PageEntry::kFramesMax < std::numeric_limits<std::uint32_t>::max());
  if (frames.value > detail::PageEntry::kFramesMax) {
    throw Error(
        Errc::invalid_argument,
        fmt::format(
            "DeviceOptions::memory: {} bytes are too many for granules of {} bytes; choose larger ones",
            options.memory.value, frame_bytes.value));
  }
  return frames;
}

}  // namespace aprime::device
