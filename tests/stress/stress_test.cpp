#include <gtest/gtest.h>

#include <string>

#include "tests/stress/configs.hpp"
#include "tests/stress/run.hpp"

// Everything at once, against a model of every word.
//
// Replay a failure with APRIME_STRESS_SEED=<seed> and --gtest_filter; APRIME_STRESS_OPERATIONS changes the
// length. The order of threads is not replayed, only what each of them tries to do.

namespace aprime::stress {
namespace {

class Stress : public testing::TestWithParam<Config> {};

TEST_P(Stress, every_observer_sees_only_what_it_may_see) {
  EXPECT_EQ(run(GetParam(), length_of_run({.operations = 4'000'000})), "");
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
  EXPECT_NE(run(config, {.operations = operations}), "");
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
