#include <gtest/gtest.h>

#include <string>

#include "tests/contract/contract.hpp"
#include "tests/cuda/fake_runtime.hpp"
#include "tests/stress/configs.hpp"
#include "tests/stress/differential.hpp"
#include "tests/stress/run.hpp"

// The stress tests can fail where the device is CUDA's: they notice a CUDA that now and then does not copy. A
// copy to the GPU that is missing is a stale read there, one to the CPU a lost store.

namespace aprime::stress {
namespace {

class LostCopies : public testing::TestWithParam<cudaMemcpyKind> {
 protected:
  LostCopies() { fake_cuda::lose_copies(GetParam(), 100); }
  ~LostCopies() override { fake_cuda::repair(); }
};

TEST_P(LostCopies, are_noticed_by_the_model) {
  for (const Config& config : configs())
    EXPECT_NE(run(config, {.operations = 20'000'000}), "");  // ends where it fails
}

TEST_P(LostCopies, are_noticed_by_the_differential_test) {
  std::string problem;
  for (unsigned seed = 0; problem.empty(); ++seed) {
    ASSERT_LT(seed, 50U);
    problem = run_operations(make_setting(seed, contract::personalities()), make_operations(seed, 200));
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, LostCopies, testing::Values(cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost),
                         [](const auto& test) {
                           return test.param == cudaMemcpyHostToDevice ? "to_the_gpu" : "to_the_cpu";
                         });

}  // namespace
}  // namespace aprime::stress
