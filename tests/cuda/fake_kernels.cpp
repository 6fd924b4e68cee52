#include "tests/cuda/fake_kernels.hpp"

#include "tests/contract/cuda_kernels.hpp"
#include "tests/stress/cuda_kernels.hpp"

namespace aprime::contract {
APRIME_CONTRACT_KERNELS(FAKE_CUDA_KERNEL)
APRIME_CONTRACT_TASKS(FAKE_CUDA_TASK)
}  // namespace aprime::contract
namespace aprime::stress {
APRIME_STRESS_KERNELS(FAKE_CUDA_KERNEL)
APRIME_STRESS_TASKS(FAKE_CUDA_TASK)
}  // namespace aprime::stress
