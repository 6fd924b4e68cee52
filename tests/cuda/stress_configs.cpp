#include <chrono>
#include <vector>

#include "tests/stress/configs.hpp"

namespace aprime::stress {
namespace {

using namespace aprime::literals;
using std::chrono::milliseconds;

/// All devices are one GPU, and each has a fraction of the file.
Config config(const char* name, const std::vector<DeviceMemoryKind>& devices, ByteCount granule,
              unsigned granules, HostAccess how, milliseconds dirty_age_max) {
  Config made{.name = name,
              .devices = {},
              .granule = granule,
              .granules = granules,
              .host_access = how,
              .dirty_age_max = dirty_age_max,
              .planned = true};
  for (const DeviceMemoryKind kind : devices)
    made.devices.push_back(
        {.kind = DeviceKind::cuda, .memory = ByteCount{24 * granule.value}, .memory_kind = kind});
  return made;
}

}  // namespace

std::vector<Config> configs() {
  constexpr auto device = DeviceMemoryKind::device;
  constexpr auto managed = DeviceMemoryKind::managed;
  return {config("one_16K", {device}, 16_KiB, 72, HostAccess::adaptive, milliseconds{20}),
          config("one_managed_64K", {managed}, 64_KiB, 64, HostAccess::bounce, milliseconds{0}),
          config("two_4K", {device, device}, 4_KiB, 96, HostAccess::migrate, milliseconds{5}),
          config("both_kinds_8K", {device, managed}, 8_KiB, 80, HostAccess::adaptive, milliseconds{20})};
}

}  // namespace aprime::stress
