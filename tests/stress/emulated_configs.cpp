#include <chrono>
#include <vector>

#include "tests/stress/configs.hpp"

namespace aprime::stress {
namespace {

using namespace aprime::literals;
using std::chrono::milliseconds;

/// Device memory is a fraction of the file, so that it is evicted all the time.
DeviceOptions device(DeviceKind kind, ByteCount granule, bool without_userfaultfd = false) {
  return {.kind = kind,
          .memory = ByteCount{24 * granule.value},
          .workers = 2,
          .without_userfaultfd = without_userfaultfd};
}

Config planned(Config config) {
  config.planned = true;
  return config;
}

}  // namespace

std::vector<Config> configs() {
  constexpr auto faulting = DeviceKind::emulated;
  constexpr auto strict = DeviceKind::emulated_strict;
  const auto emulated = [](ByteCount g) { return device(faulting, g); };
  const auto without = [](ByteCount g) { return device(faulting, g, true); };
  const auto leased = [](ByteCount g) { return device(strict, g); };
  return {
      {"one_4K", {emulated(4_KiB)}, 4_KiB, 96, HostAccess::adaptive, milliseconds{20}},
      {"two_16K", {emulated(16_KiB), emulated(16_KiB)}, 16_KiB, 72, HostAccess::migrate, milliseconds{20}},
      {"one_64K_no_flusher", {emulated(64_KiB)}, 64_KiB, 64, HostAccess::bounce, milliseconds{0}},
      {"one_without_userfaultfd_16K", {without(16_KiB)}, 16_KiB, 72, HostAccess::adaptive, milliseconds{20}},
      {"two_without_userfaultfd_4K",
       {without(4_KiB), without(4_KiB)},
       4_KiB,
       96,
       HostAccess::bounce,
       milliseconds{5}},
      {"one_strict_16K", {leased(16_KiB)}, 16_KiB, 72, HostAccess::adaptive, milliseconds{20}},
      {"two_strict_4K", {leased(4_KiB), leased(4_KiB)}, 4_KiB, 96, HostAccess::migrate, milliseconds{5}},
      {"three_kinds_8K",
       {emulated(8_KiB), without(8_KiB), leased(8_KiB)},
       8_KiB,
       80,
       HostAccess::adaptive,
       milliseconds{20}},
      planned({"planned_three_kinds_16K",
               {emulated(16_KiB), without(16_KiB), leased(16_KiB)},
               16_KiB,
               72,
               HostAccess::adaptive,
               milliseconds{20}}),
      planned({"planned_two_strict_4K",
               {leased(4_KiB), leased(4_KiB)},
               4_KiB,
               96,
               HostAccess::bounce,
               milliseconds{5}}),
  };
}

}  // namespace aprime::stress
