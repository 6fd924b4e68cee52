#include "host/cli/workload_run.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "aprime/runtime.hpp"
#include "host/cli/exit_code.hpp"
#include "kernels/blackscholes.hpp"
#include "kernels/blackscholes_kernel.hpp"
#include "kernels/reduce.hpp"
#include "kernels/reference_sum.hpp"

namespace aprime::cli {
namespace {

class NobodyWatches final : public kernels::Progress {
 public:
  void begin(const std::string&, ByteCount) override {}
  void advance(ByteCount) override {}
};

constexpr kernels::Argument kArguments[] = {{"FILE", "", Access::read}};

/// One that stores nothing, and ends by `run`.
kernels::Workload workload_that(kernels::Result (*run)(kernels::Session&, const kernels::Arguments&,
                                                       std::span<const Mapping>)) {
  return {.name = "none",
          .help = "",
          .arguments = kArguments,
          .element_bytes = 1,
          .stoppable = true,
          .needs_disk_space = false,
          .validate = nullptr,
          .make_check = nullptr,
          .run = run};
}

/// The CPU's threads read, by another path than what is mapped, other bytes: they find a disagreement.
class DisagreementMeanwhile : public testing::Test {
 protected:
  DisagreementMeanwhile() {
    std::filesystem::create_directory(directory_);
    std::ofstream(mapped_) << "mapped";
    std::ofstream(other_) << "others";
  }
  ~DisagreementMeanwhile() override { std::filesystem::remove_all(directory_); }

  bool compute_with(const kernels::Workload& workload) {
    Runtime runtime;
    NobodyWatches progress;
    kernels::Session session(runtime, ByteCount{64 << 10}, ByteCount{1 << 20}, progress);
    const Mapping file = runtime.map(mapped_, Access::read);
    kernels::Arguments arguments;
    arguments.files = {other_};
    RunReport report;
    return compute(workload, arguments, true, session, {&file, 1}, report);
  }

 private:
  const std::filesystem::path directory_ =
      std::filesystem::path(testing::TempDir()) / ("aprime-disagreement-" + std::to_string(::getpid()));
  const std::string mapped_ = directory_ / "mapped";
  const std::string other_ = directory_ / "other";
};

TEST_F(DisagreementMeanwhile, IsToldWhenTheWorkloadIsComplete) {
  EXPECT_THROW(compute_with(workload_that([](auto&, auto&, auto) { return kernels::Result{}; })),
               Disagreement);
}

TEST_F(DisagreementMeanwhile, IsToldWhenTheWorkloadIsInterrupted) {
  EXPECT_THROW(compute_with(workload_that(
                   [](auto&, auto&, auto) -> kernels::Result { throw kernels::Interrupted{}; })),
               Disagreement);
}

TEST_F(DisagreementMeanwhile, IsToldWhenTheWorkloadFails) {
  EXPECT_THROW(compute_with(workload_that(
                   [](auto&, auto&, auto) -> kernels::Result { throw kernels::InputError("wrong"); })),
               Disagreement);
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kHuge = std::numeric_limits<float>::max();

TEST(CheckOfASum, AcceptsOnlyTheInfinityThatItIs) {
  const std::filesystem::path path =
      std::filesystem::path(testing::TempDir()) / ("aprime-values-" + std::to_string(::getpid()));
  const auto accepts = [&](const std::vector<float>& values, double sum) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(values.data()),
               static_cast<std::streamsize>(values.size() * sizeof(float)));
    const kernels::RunFile file{path, ByteCount{values.size() * sizeof(float)}};
    return kernels::reduce.make_check({}, {&file, 1})->disagreement({{"sum", sum}}).empty();
  };
  EXPECT_TRUE(accepts({1, 2}, 3));
  for (const double wrong : {2.0, double{kInfinity}, double{-kInfinity}, double{kNan}})
    EXPECT_FALSE(accepts({1, 2}, wrong)) << wrong;
  EXPECT_TRUE(accepts({1, kInfinity}, kInfinity));
  for (const double wrong : {1.0, double{-kInfinity}, double{kNan}})
    EXPECT_FALSE(accepts({1, kInfinity}, wrong)) << wrong;
  for (const std::vector<float>& values : {std::vector{1, kNan}, {kInfinity, -kInfinity}}) {
    EXPECT_TRUE(accepts(values, kNan));
    for (const double wrong : {1.0, double{kInfinity}, double{-kInfinity}})
      EXPECT_FALSE(accepts(values, wrong)) << wrong;
  }
  std::filesystem::remove(path);
}

TEST(CheckOfPrices, RefusesWhatIsWrongByAHundredthHoweverFarOffTheStrikeLies) {
  const std::filesystem::path path =
      std::filesystem::path(testing::TempDir()) / ("aprime-options-" + std::to_string(::getpid()));
  kernels::Arguments arguments;
  const kernels::RunFile file{path, ByteCount{sizeof(kernels::OptionRecord)}};
  const auto accepts = [&](const kernels::OptionRecord& option) {
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(&option), sizeof option);
    return kernels::blackscholes.make_check(arguments, {&file, 1})->disagreement({}).empty();
  };
  const auto accepts_only = [&](const kernels::OptionRecord& right) {
    EXPECT_TRUE(accepts(right));
    const float hundredth = 0.01F * (right.spot + right.strike);
    for (const float wrong : {hundredth, -hundredth, kInfinity, kNan}) {
      for (float kernels::OptionRecord::*const price :
           {&kernels::OptionRecord::call, &kernels::OptionRecord::put}) {
        kernels::OptionRecord option = right;
        option.*price += wrong;
        EXPECT_FALSE(accepts(option)) << option.years << ": " << option.call << ", " << option.put;
      }
    }
  };
  // With so little time left they are worth what they would be now.
  arguments.volatility = 0.2F;
  for (const float years : {1e-4F, 1e-6F, 1e-9F, 1e-12F, 1e-14F, 1e-30F, 1e-44F}) {
    accepts_only({.spot = 100, .strike = 50, .years = years, .call = 50, .put = 0});
    accepts_only({.spot = 50, .strike = 100, .years = years, .call = 0, .put = 50});
    if (years <= 1e-12F) accepts_only({.spot = 50, .strike = 50, .years = years, .call = 0, .put = 0});
  }
  // A call on what may be worth anything is worth as much as that itself, a put as much as the strike.
  for (const float volatility : {1e2F, 1e4F, 1e8F, 1e20F, 3e38F}) {
    arguments.volatility = volatility;
    accepts_only({.spot = 100, .strike = 50, .years = 1, .call = 100, .put = 50});
    accepts_only({.spot = 100, .strike = 50, .years = 1e38F, .call = 100, .put = 50});
  }
  std::filesystem::remove(path);
}

TEST(CheckOfASumInFloat, AcceptsAnotherInfinityOnlyWhereAPartialSumMayHaveOverflowed) {
  const auto accepts = [](const std::vector<double>& products, float sum) {
    kernels::ReferenceSum reference;
    for (const double product : products) reference.add(product);
    return reference.accepts(sum, products.size());
  };
  EXPECT_TRUE(accepts({1, kInfinity}, kInfinity));
  for (const float wrong : {1.0F, -kInfinity, kNan}) EXPECT_FALSE(accepts({1, kInfinity}, wrong)) << wrong;
  EXPECT_TRUE(accepts({-kHuge, -kHuge, kInfinity}, kNan));
  EXPECT_FALSE(accepts({-kHuge, -kHuge, kInfinity}, -kInfinity));
  EXPECT_TRUE(accepts({kInfinity, -kInfinity}, kNan));
  for (const float wrong : {1.0F, kInfinity, -kInfinity})
    EXPECT_FALSE(accepts({kInfinity, -kInfinity}, wrong)) << wrong;
  EXPECT_TRUE(accepts({kHuge, kHuge, -kHuge, -kHuge}, kNan));
  EXPECT_FALSE(accepts({1, 2}, kNan));
}

}  // namespace
}  // namespace aprime::cli
