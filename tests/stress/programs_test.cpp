#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/stress/broken_recall.hpp"
#include "tests/stress/run.hpp"

// As stress_test.cpp, with four programs on a mount among the actors. Replayed the same way.

namespace aprime::stress {
namespace {

using namespace aprime::literals;
using std::chrono::milliseconds;

Config config(std::string name, const std::vector<DeviceKind>& devices, ByteCount granule, unsigned granules,
              HostAccess how, bool tail_is_programs) {
  Config made{.name = std::move(name),
              .devices = {},
              .granule = granule,
              .granules = granules,
              .host_access = how,
              .dirty_age_max = milliseconds{20},
              .programs = 4,
              .program = APRIME_STRESS_PROGRAM,
              .tail_is_programs = tail_is_programs};
  // A fraction of the file, so that it is evicted all the time.
  for (const DeviceKind kind : devices)
    made.devices.push_back({.kind = kind, .memory = ByteCount{24 * granule.value}, .workers = 2});
  return made;
}

std::vector<Config> configs() {
  constexpr auto faulting = DeviceKind::emulated;
  constexpr auto strict = DeviceKind::emulated_strict;
  return {config("both_kinds_16K", {faulting, strict}, 16_KiB, 72, HostAccess::adaptive, true),
          config("both_kinds_4K", {faulting, strict}, 4_KiB, 96, HostAccess::migrate, false),
          config("two_faulting_64K", {faulting, faulting}, 64_KiB, 48, HostAccess::bounce, true),
          config("two_strict_8K", {strict, strict}, 8_KiB, 80, HostAccess::bounce, false)};
}

class ProgramsStress : public testing::TestWithParam<Config> {};

TEST_P(ProgramsStress, every_observer_sees_only_what_it_may_see) {
  set_recall(Recall::whole);
  EXPECT_EQ(run(GetParam(), length_of_run({.operations = 2'000'000, .calls = 60'000})), "");
}

INSTANTIATE_TEST_SUITE_P(Configs, ProgramsStress, testing::ValuesIn(configs()),
                         [](const auto& test) { return test.param.name; });

/// The model can fail: it notices pages that are left to programs.
class ProgramsSabotage : public testing::TestWithParam<Recall> {};

TEST_P(ProgramsSabotage, is_noticed) {
  set_recall(GetParam());
  EXPECT_NE(run(configs().front(), {.operations = 100'000'000}), "");  // ends where it fails
  set_recall(Recall::whole);
}

INSTANTIATE_TEST_SUITE_P(Kinds, ProgramsSabotage,
                         testing::Values(Recall::skips_a_page, Recall::forgets_late_pages),
                         [](const auto& test) {
                           return test.param == Recall::skips_a_page ? "skipped_page" : "late_page";
                         });

}  // namespace
}  // namespace aprime::stress
