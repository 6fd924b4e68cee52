#include <cub/device/device_reduce.cuh>
#include <cub/device/device_scan.cuh>

#include <cstddef>

#include "aprime/cuda.hpp"
#include "kernels/cuda/stream_memory.hpp"
#include "kernels/scan_kernel.hpp"

// The three launches of a scan, by CUB: all elements are one part.

namespace aprime::kernels {
namespace {

struct ScanPartsByCub {
  cudaError_t operator()(cudaStream_t stream, const ScanPartsKernel&,
                         LeasedSpan<const std::uint32_t> elements, LeasedSpan<ScanSums> sums) const {
    std::uint32_t* const parts = sums.data()->parts;
    // The second launch adds up as many parts as there would have been.
    const cudaError_t error = cudaMemsetAsync(parts, 0, sizeof sums.data()->parts, stream);
    if (error != cudaSuccess) return error;
    return with_work_memory(stream, [&](void* work, std::size_t& work_bytes) {
      return cub::DeviceReduce::Sum(work, work_bytes, elements.data(), parts, elements.size(), stream);
    });
  }
};

__global__ void add_to_first(std::uint32_t* elements, const ScanSums* sums) { elements[0] += sums->parts[0]; }

struct ScanByCub {
  cudaError_t operator()(cudaStream_t stream, const ScanKernel&, LeasedSpan<std::uint32_t> elements,
                         LeasedSpan<const ScanSums> sums) const {
    if (elements.empty()) return cudaSuccess;
    add_to_first<<<1, 1, 0, stream>>>(elements.data(), sums.data());
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
    return with_work_memory(stream, [&](void* work, std::size_t& work_bytes) {
      return cub::DeviceScan::InclusiveSum(work, work_bytes, elements.data(), elements.data(),
                                           elements.size(), stream);
    });
  }
};

}  // namespace

APRIME_CUDA_KERNEL_AS(ScanPartsByCub, ScanPartsKernel, LeasedBytes<Right::read>,
                      LeasedBytes<Right::read_write>)
APRIME_CUDA_KERNEL_AS(ScanByCub, ScanKernel, LeasedBytes<Right::read_write>, LeasedBytes<Right::read_write>)

}  // namespace aprime::kernels
