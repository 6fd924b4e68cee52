#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "tests/stress/run.hpp"

// Everything at once, against a model of every word.
//
// Replay a failure with APRIME_STRESS_SEED=<seed> and --gtest_filter; APRIME_STRESS_OPERATIONS changes the
// length. The order of threads is not replayed, only what each of them tries to do.

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
  };
}

class Stress : public testing::TestWithParam<Config> {};

TEST_P(Stress, every_observer_sees_only_what_it_may_see) {
  EXPECT_EQ(run(GetParam(), operations_of_run(4'000'000)), "");
}

INSTANTIATE_TEST_SUITE_P(Configs, Stress, testing::ValuesIn(configs()),
                         [](const auto& test) { return test.param.name; });

/// The model can fail: it notices each kind of sabotage.
class StressSabotage : public testing::TestWithParam<Sabotage> {};

TEST_P(StressSabotage, is_noticed) {
  Config config = configs().front();
  config.sabotage = GetParam();
  // A run ends where it fails; what is done at its end waits for that.
  const std::uint64_t operations = GetParam() == Sabotage::corrupt_file ? 600'000 : 20'000'000;
  EXPECT_NE(run(config, operations), "");
}

INSTANTIATE_TEST_SUITE_P(Kinds, StressSabotage,
                         testing::Values(Sabotage::lose_store, Sabotage::tear_block, Sabotage::corrupt_file),
                         [](const auto& test) {
                           switch (test.param) {
                             case Sabotage::lose_store: return "lost_store";
                             case Sabotage::tear_block: return "torn_block";
                             case Sabotage::corrupt_file: return "corrupt_file";
                             case Sabotage::none: break;
                           }
                           return "none";
                         });

}  // namespace
}  // namespace aprime::stress
