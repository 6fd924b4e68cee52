#include "host/cli/workload_run.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "aprime/runtime.hpp"
#include "host/cli/exit_code.hpp"

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

}  // namespace
}  // namespace aprime::cli
