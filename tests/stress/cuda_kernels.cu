// The kernels for the GPU of the tests under stress/.

#include "tests/stress/cuda_kernels.hpp"

#include "aprime/cuda.hpp"

namespace aprime::stress {
namespace {

__global__ void follow_leased(FollowLeased kernel, LeasedSpan<const std::uint64_t> readable,
                              LeasedSpan<std::uint64_t> writable, LeasedSpan<Visit> visits) {
  kernel(readable, writable, visits);
}

struct FollowOnCuda {
  void operator()(cudaStream_t stream, const FollowTask& task, LeasedSpan<const std::uint64_t> readable,
                  LeasedSpan<std::uint64_t> writable, LeasedSpan<Visit> visits) const {
    follow_leased<<<2, task.lanes / 2, 0, stream>>>(task.leased, readable, writable, visits);
  }
};

__global__ void store_bytes(StoreBytes kernel, LeasedSpan<std::uint8_t> bytes) { kernel(bytes); }

struct StoreBytesOnCuda {
  void operator()(cudaStream_t stream, const StoreBytesTask& task, LeasedSpan<std::uint8_t> bytes) const {
    store_bytes<<<4, 64, 0, stream>>>(StoreBytes{task.salt}, bytes);
  }
};

}  // namespace

APRIME_STRESS_KERNELS(APRIME_CUDA_KERNEL)
APRIME_CUDA_TASK(FollowOnCuda, FollowTask, Read, ReadWrite, ReadWrite)
APRIME_CUDA_TASK(StoreBytesOnCuda, StoreBytesTask, ReadWrite)
APRIME_CUDA_TASK(StoreBytesOnCuda, StoreBytesTask, Write)

}  // namespace aprime::stress
