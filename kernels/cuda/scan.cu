#include <cub/device/device_reduce.cuh>
#include <cub/device/device_scan.cuh>

#include <algorithm>
#include <cstddef>

#include "aprime/cuda.hpp"
#include "kernels/cuda/stream_memory.hpp"
#include "kernels/scan_kernel.hpp"

// The three launches of a scan, by CUB, which makes parts as small as the kernels' unnecessary. But before
// CUDA 12.8 it counts elements by int.

namespace aprime::kernels {
namespace {

/// Elements of each part but the last. There are never more parts than the kernels have, which the second
/// launch adds up: of more elements than this they have about kScanBlocksMax.
constexpr std::size_t kPart = std::size_t{1} << 30;

/// Calls `algorithm(part, its elements, their number)` for each part; it returns a cudaError_t.
template <class T, class Algorithm>
cudaError_t for_each_part(LeasedSpan<T> elements, Algorithm&& algorithm) {
  for (std::size_t first = 0; first < elements.size(); first += kPart) {
    const std::size_t size = std::min(kPart, elements.size() - first);
    const cudaError_t error = algorithm(first / kPart, elements.data() + first, size);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

struct ScanPartsByCub {
  cudaError_t operator()(cudaStream_t stream, const ScanPartsKernel&,
                         LeasedSpan<const std::uint32_t> elements, LeasedSpan<ScanSums> sums) const {
    std::uint32_t* const parts = sums.data()->parts;
    // The second launch adds up as many parts as the kernels would have had.
    const cudaError_t error = cudaMemsetAsync(parts, 0, sizeof sums.data()->parts, stream);
    if (error != cudaSuccess) return error;
    return for_each_part(elements, [&](std::size_t part, const std::uint32_t* first, std::size_t size) {
      return with_work_memory(stream, [&](void* work, std::size_t& work_bytes) {
        return cub::DeviceReduce::Sum(work, work_bytes, first, parts + part, size, stream);
      });
    });
  }
};

__global__ void add_to_first(std::uint32_t* elements, const std::uint32_t* sum) { elements[0] += *sum; }

struct ScanByCub {
  cudaError_t operator()(cudaStream_t stream, const ScanKernel&, LeasedSpan<std::uint32_t> elements,
                         LeasedSpan<const ScanSums> sums) const {
    return for_each_part(elements, [&](std::size_t part, std::uint32_t* first, std::size_t size) {
      add_to_first<<<1, 1, 0, stream>>>(first, sums.data()->parts + part);
      const cudaError_t error = cudaGetLastError();
      if (error != cudaSuccess) return error;
      return with_work_memory(stream, [&](void* work, std::size_t& work_bytes) {
        return cub::DeviceScan::InclusiveSum(work, work_bytes, first, first, size, stream);
      });
    });
  }
};

}  // namespace

APRIME_CUDA_KERNEL_AS(ScanPartsByCub, ScanPartsKernel, LeasedBytes<Right::read>,
                      LeasedBytes<Right::read_write>)
APRIME_CUDA_KERNEL_AS(ScanByCub, ScanKernel, LeasedBytes<Right::read_write>, LeasedBytes<Right::read_write>)

}  // namespace aprime::kernels
