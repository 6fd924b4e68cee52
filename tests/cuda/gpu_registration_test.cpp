// What nvcc compiled of the tests' kernels is in the program. Needs no GPU.

#include <gtest/gtest.h>

#include "aprime/aprime.hpp"
#include "tests/contract/cuda_kernels.hpp"
#include "tests/stress/cuda_kernels.hpp"

#define EXPECT_KERNEL(...) EXPECT_NE((detail::cuda_kernel<__VA_ARGS__>), nullptr) << #__VA_ARGS__;
#define EXPECT_TASK(...) EXPECT_NE((detail::cuda_task<__VA_ARGS__>), nullptr) << #__VA_ARGS__;

namespace aprime::contract {
TEST(CudaRegistration, every_kernel_of_the_contract_has_a_cuda_version) {
  APRIME_CONTRACT_KERNELS(EXPECT_KERNEL)
  APRIME_CONTRACT_TASKS(EXPECT_TASK)
}
}  // namespace aprime::contract
namespace aprime::stress {
TEST(CudaRegistration, every_kernel_of_the_stress_tests_has_a_cuda_version) {
  APRIME_STRESS_KERNELS(EXPECT_KERNEL)
  APRIME_STRESS_TASKS(EXPECT_TASK)
}
}  // namespace aprime::stress
