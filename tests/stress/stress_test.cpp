#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ostream>
#include <random>
#include <string>

#include "tests/stress/world.hpp"
#include "tests/test_scale.hpp"

// Everything at once, against a model of every word.
//
// Replay a failure with APRIME_STRESS_SEED=<seed> and --gtest_filter; APRIME_STRESS_OPERATIONS changes the
// length. The order of threads is not replayed, only what each of them tries to do.

namespace aprime::stress {

void PrintTo(const Config& config, std::ostream* out);
void PrintTo(const Config& config, std::ostream* out) { *out << config.name; }

namespace {

using namespace aprime::literals;
using std::chrono::milliseconds;

std::uint64_t from_environment(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

std::uint64_t new_seed() { return from_environment("APRIME_STRESS_SEED", std::random_device{}()); }

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

std::string run(const Config& config, std::uint64_t seed, std::uint64_t operations) {
  std::printf("stress: %s, APRIME_STRESS_SEED=%llu APRIME_STRESS_OPERATIONS=%llu\n", config.name.c_str(),
              static_cast<unsigned long long>(seed), static_cast<unsigned long long>(operations));
  std::fflush(stdout);
  World world(config, seed, operations);
  std::string failure = world.run();
  std::printf("%s", world.summary().c_str());
  if (failure.empty()) {
    EXPECT_GE(world.operations_done(), operations);
  }
  return failure;
}

class Stress : public testing::TestWithParam<Config> {};

TEST_P(Stress, every_observer_sees_only_what_it_may_see) {
  const std::uint64_t seed = new_seed();
  const std::uint64_t operations =
      from_environment("APRIME_STRESS_OPERATIONS", test::scaled<std::uint64_t>(4'000'000));
  const std::string failure = run(GetParam(), seed, operations);
  EXPECT_EQ(failure, "") << "replay: APRIME_STRESS_SEED=" << seed
                         << " APRIME_STRESS_OPERATIONS=" << operations << " --gtest_filter=*"
                         << GetParam().name;
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
  EXPECT_NE(run(config, new_seed(), operations), "");
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
