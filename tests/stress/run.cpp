#include "tests/stress/run.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <ostream>
#include <random>

#include "tests/test_scale.hpp"

namespace aprime::stress {
namespace {

std::uint64_t from_environment(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

}  // namespace

void PrintTo(const Config& config, std::ostream* out) { *out << config.name; }

RunLength length_of_run(const RunLength& full) {
  return {.operations = from_environment("APRIME_STRESS_OPERATIONS", test::scaled(full.operations)),
          .calls = from_environment("APRIME_STRESS_CALLS", full.calls == 0 ? 0 : test::scaled(full.calls))};
}

std::string run(const Config& config, const RunLength& length) {
  const std::uint64_t seed = from_environment("APRIME_STRESS_SEED", std::random_device{}());
  const std::string replay =
      fmt::format("APRIME_STRESS_SEED={} APRIME_STRESS_OPERATIONS={} APRIME_STRESS_CALLS={}", seed,
                  length.operations, length.calls);
  std::printf("stress: %s, %s\n", config.name.c_str(), replay.c_str());
  std::fflush(stdout);
  World world(config, seed, length);
  std::string failure = world.run();
  std::printf("%s", world.summary().c_str());
  if (failure.empty()) {
    EXPECT_GE(world.operations_done(), length.operations);
    EXPECT_GE(world.calls_done(), length.calls);
    return failure;
  }
  return failure + fmt::format("\nreplay: {} --gtest_filter=*{}", replay, config.name);
}

}  // namespace aprime::stress
