// What nvcc compiled is in the program: no linker left it out. Needs no GPU.

#include <cuda_runtime_api.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "aprime/aprime.hpp"
#include "kernels/cuda/start.hpp"
#include "kernels/grep_kernel.hpp"
#include "kernels/histogram_kernel.hpp"
#include "kernels/reduce_kernel.hpp"
#include "kernels/rotate_kernel.hpp"
#include "kernels/saxpy_kernel.hpp"
#include "kernels/sort_tasks.hpp"
#include "kernels/transpose_kernel.hpp"
#include "kernels/uppercase_kernel.hpp"
#include "kernels/workload.hpp"

namespace aprime::kernels {
namespace {

using Read = LeasedBytes<Right::read>;
using ReadWrite = LeasedBytes<Right::read_write>;
using Write = LeasedBytes<Right::write>;

TEST(CudaRegistration, every_kernel_of_the_workloads_has_a_cuda_version) {
  ASSERT_FALSE(all_workloads().empty());
  EXPECT_NE((detail::cuda_kernel<HistogramKernel, Read, ReadWrite>), nullptr);
  EXPECT_NE((detail::cuda_kernel<GrepKernel, Read, ReadWrite>), nullptr);
  EXPECT_NE((detail::cuda_kernel<ReduceKernel, Read, ReadWrite>), nullptr);
  EXPECT_NE((detail::cuda_kernel<ReverseKernel, ReadWrite>), nullptr);
  EXPECT_NE((detail::cuda_kernel<ReverseEndsKernel, ReadWrite, ReadWrite>), nullptr);
  EXPECT_NE((detail::cuda_kernel<SaxpyKernel, ReadWrite, Read>), nullptr);
  EXPECT_NE((detail::cuda_kernel<UppercaseKernel, ReadWrite>), nullptr);
  EXPECT_NE((detail::cuda_kernel<TransposeKernel, Read, Write>), nullptr);
  EXPECT_NE((detail::cuda_kernel<InterleaveKernel, Read, Write>), nullptr);
  EXPECT_NE((detail::cuda_kernel<CopyKernel, Read, Write>), nullptr);
  EXPECT_NE((detail::cuda_kernel<SwapPanelsKernel, ReadWrite, ReadWrite>), nullptr);
  EXPECT_NE((detail::cuda_kernel<SwapWithinKernel, ReadWrite>), nullptr);
  EXPECT_NE((detail::cuda_task<SortTask, ReadWrite>), nullptr);
  EXPECT_NE((detail::cuda_task<MergeTask, ReadWrite>), nullptr);
}

struct Unknown {
  void operator()(int) const {}
};

TEST(CudaRegistration, a_kernel_without_a_cuda_version_is_named_with_the_remedy) {
  detail::HostClosure<Unknown, int> closure({}, "unheard-of", 1);
  try {
    cuda::start_kernel(closure.body(), Grid{}, nullptr);
    FAIL() << "it has no CUDA version";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Errc::invalid_argument);
    EXPECT_THAT(error.what(), testing::HasSubstr("unheard-of"));
    EXPECT_THAT(error.what(), testing::HasSubstr("APRIME_CUDA_KERNEL"));
  }
  try {
    cuda::start_task(closure, "unheard-of", nullptr);
    FAIL() << "it has no CUDA version";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("APRIME_CUDA_TASK"));
  }
}

}  // namespace
}  // namespace aprime::kernels
