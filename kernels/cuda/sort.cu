#include <thrust/copy.h>
#include <thrust/merge.h>
#include <thrust/sort.h>
#include <thrust/system/cuda/execution_policy.h>

#include <cstdint>
#include <new>

#include "aprime/cuda.hpp"
#include "kernels/cuda/stream_memory.hpp"
#include "kernels/sort_tasks.hpp"

namespace aprime::kernels {
namespace {

using Elements = LeasedSpan<std::uint32_t>;

struct SortByThrust {
  void operator()(cudaStream_t stream, const SortTask&, Elements elements) const {
    StreamAllocator memory(stream);
    thrust::sort(thrust::cuda::par_nosync(memory).on(stream), elements.begin(), elements.end());
  }
};

struct MergeByThrust {
  void operator()(cudaStream_t stream, const MergeTask& task, Elements elements) const {
    StreamAllocator memory(stream);
    const auto on_stream = thrust::cuda::par_nosync(memory).on(stream);
    const StreamMemory merged(elements.size() * sizeof(std::uint32_t), stream);
    if (merged.error() != cudaSuccess) throw std::bad_alloc();
    auto* const out = static_cast<std::uint32_t*>(merged.data());
    std::uint32_t* const second = elements.data() + task.middle;
    thrust::merge(on_stream, elements.begin(), second, second, elements.end(), out);
    thrust::copy(on_stream, out, out + elements.size(), elements.begin());
  }
};

}  // namespace

APRIME_CUDA_TASK(SortByThrust, SortTask, LeasedBytes<Right::read_write>)
APRIME_CUDA_TASK(MergeByThrust, MergeTask, LeasedBytes<Right::read_write>)

}  // namespace aprime::kernels
