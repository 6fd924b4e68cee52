#include <thrust/functional.h>
#include <thrust/system/cuda/execution_policy.h>
#include <thrust/system_error.h>
#include <thrust/transform_reduce.h>

#include <new>

#include "aprime/cuda.hpp"
#include "kernels/cuda/stream_memory.hpp"
#include "kernels/reduce_kernel.hpp"

namespace aprime::kernels {
namespace {

struct ToDouble {
  APRIME_HOST_DEVICE double operator()(float value) const { return value; }
};

__global__ void add(double* to, double sum) { *to += sum; }

/// What ReduceKernel does, by Thrust: the sum of all parts goes to the first entry. Double from the first
/// addition, in a tree that depends on the number of elements and the GPU only, so that a sum is the same in
/// every run.
struct ReduceByThrust {
  cudaError_t operator()(cudaStream_t stream, const ReduceKernel&, LeasedSpan<const float> elements,
                         LeasedSpan<double> sums) const {
    StreamAllocator memory(stream);
    try {
      const double sum =
          thrust::transform_reduce(thrust::cuda::par(memory).on(stream), elements.begin(), elements.end(),
                                   ToDouble{}, 0.0, thrust::plus<double>{});
      add<<<1, 1, 0, stream>>>(sums.data(), sum);
      return cudaGetLastError();
    } catch (const std::bad_alloc&) {
      return cudaErrorMemoryAllocation;
    } catch (const thrust::system_error& error) {
      return static_cast<cudaError_t>(error.code().value());
    }
  }
};

}  // namespace

APRIME_CUDA_KERNEL_AS(ReduceByThrust, ReduceKernel, LeasedBytes<Right::read>, LeasedBytes<Right::read_write>)

}  // namespace aprime::kernels
