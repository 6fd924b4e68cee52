#include <thrust/copy.h>
#include <thrust/merge.h>
#include <thrust/system/cuda/error.h>
#include <thrust/system/cuda/execution_policy.h>
#include <thrust/system_error.h>
#include <thrust/version.h>

#include <cub/device/device_radix_sort.cuh>

#include <climits>
#include <cstddef>
#include <cstdint>
#include <new>

#include "aprime/cuda.hpp"
#include "kernels/cuda/stream_memory.hpp"
#include "kernels/sort_tasks.hpp"

namespace aprime::kernels {
namespace {

using Elements = LeasedSpan<std::uint32_t>;

void throw_if_failed(cudaError_t error) {
  if (error == cudaErrorMemoryAllocation) throw std::bad_alloc();
  if (error != cudaSuccess) throw thrust::system_error(error, thrust::cuda_category());
}

/// What Thrust does, but before CUDA 12.8 it counts the elements by int.
struct SortByCub {
  void operator()(cudaStream_t stream, const SortTask&, Elements elements) const {
    if (elements.empty()) return;
    const std::size_t bytes = elements.size() * sizeof(std::uint32_t);
    const StreamMemory other(bytes, stream);
    throw_if_failed(other.error());
    cub::DoubleBuffer<std::uint32_t> sorted(elements.data(), static_cast<std::uint32_t*>(other.data()));
    throw_if_failed(with_work_memory(stream, [&](void* work, std::size_t& work_bytes) {
      return cub::DeviceRadixSort::SortKeys(work, work_bytes, sorted, elements.size(), 0, 32, stream);
    }));
    if (sorted.Current() != elements.data())
      throw_if_failed(
          cudaMemcpyAsync(elements.data(), sorted.Current(), bytes, cudaMemcpyDeviceToDevice, stream));
  }
};

/// Elements that Thrust merges: before CUDA 12.8 it numbers them by int.
constexpr std::size_t kMergedMax = THRUST_VERSION < 200700 ? INT_MAX : PTRDIFF_MAX;

struct MergeByThrust {
  void operator()(cudaStream_t stream, const MergeTask& task, Elements elements) const {
    if (elements.size() > kMergedMax) return SortByCub{}(stream, SortTask{}, elements);
    StreamAllocator memory(stream);
    const auto on_stream = thrust::cuda::par_nosync(memory).on(stream);
    const StreamMemory merged(elements.size() * sizeof(std::uint32_t), stream);
    throw_if_failed(merged.error());
    auto* const out = static_cast<std::uint32_t*>(merged.data());
    std::uint32_t* const second = elements.data() + task.middle;
    thrust::merge(on_stream, elements.begin(), second, second, elements.end(), out);
    thrust::copy(on_stream, out, out + elements.size(), elements.begin());
  }
};

}  // namespace

APRIME_CUDA_TASK(SortByCub, SortTask, LeasedBytes<Right::read_write>)
APRIME_CUDA_TASK(MergeByThrust, MergeTask, LeasedBytes<Right::read_write>)

}  // namespace aprime::kernels
