#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "tests/stress/differential.hpp"
#include "tests/stress/random.hpp"
#include "tests/test_scale.hpp"

// Short random runs of every operation on one thread, against an array of bytes. Replay a failure with
// APRIME_STRESS_SEED=<seed> APRIME_STRESS_RUNS=1; the seed in the message is that of the one run that failed.

namespace aprime::stress {
namespace {

std::uint64_t from_environment(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

std::string listing(const std::vector<Operation>& operations) {
  std::string text;
  for (const Operation& operation : operations) text += "  " + describe(operation) + ",\n";
  return text;
}

TEST(Differential, every_operation_does_to_the_file_what_it_does_to_an_array) {
  const std::uint64_t seed = from_environment("APRIME_STRESS_SEED", std::random_device{}());
  const std::uint64_t runs = from_environment("APRIME_STRESS_RUNS", test::scaled<std::uint64_t>(400));
  std::printf("differential: APRIME_STRESS_SEED=%llu APRIME_STRESS_RUNS=%llu\n",
              static_cast<unsigned long long>(seed), static_cast<unsigned long long>(runs));
  std::fflush(stdout);
  for (std::uint64_t run = seed; run < seed + runs; ++run) {
    const Setting setting = make_setting(run, contract::personalities());
    const std::vector<Operation> operations = make_operations(run, 30 + run % 200);
    const std::string problem = run_operations(setting, operations);
    if (problem.empty()) continue;
    const std::vector<Operation> few = shrink(setting, operations);
    FAIL() << problem << "\nAPRIME_STRESS_SEED=" << run
           << " APRIME_STRESS_RUNS=1; the shortest list that fails:\n"
           << listing(few) << run_operations(setting, few);
  }
}

/// The comparison can fail, and its message is short.
TEST(Differential, notices_a_changed_byte_and_shrinks_the_list) {
  constexpr std::uint64_t kSeed = 5;
  const Setting setting = make_setting(kSeed, contract::personalities());
  std::vector<Operation> operations = make_operations(kSeed, 40);
  operations.push_back({Verb::corrupt, 0, 0, 0, 123, 0});
  ASSERT_GT(setting.file_bytes, 0U);
  EXPECT_NE(run_operations(setting, operations), "");
  const std::vector<Operation> few = shrink(setting, operations);
  ASSERT_EQ(few.size(), 1U) << listing(few);
  EXPECT_EQ(few.front().verb, Verb::corrupt);
}

}  // namespace
}  // namespace aprime::stress
