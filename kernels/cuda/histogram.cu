#include <cub/device/device_histogram.cuh>

#include <cstddef>

#include "aprime/cuda.hpp"
#include "kernels/cuda/stream_memory.hpp"
#include "kernels/histogram_kernel.hpp"

namespace aprime::kernels {
namespace {

constexpr int kBins = 256;

__global__ void add_to_bins(const unsigned long long* counts, unsigned long long* bins) {
  bins[threadIdx.x] += counts[threadIdx.x];
}

/// What HistogramKernel does, by CUB, which knows each GPU's best way to count.
struct HistogramByCub {
  cudaError_t operator()(cudaStream_t stream, const HistogramKernel&, LeasedSpan<const unsigned char> bytes,
                         LeasedSpan<unsigned long long> bins) const {
    if (bytes.empty()) return cudaSuccess;
    const StreamMemory counts(kBins * sizeof(unsigned long long), stream);
    if (counts.error() != cudaSuccess) return counts.error();
    auto* const counted = static_cast<unsigned long long*>(counts.data());

    const cudaError_t error = with_work_memory(stream, [&](void* work, std::size_t& work_bytes) {
      return cub::DeviceHistogram::HistogramEven(work, work_bytes, bytes.data(), counted, kBins + 1, 0, kBins,
                                                 static_cast<std::ptrdiff_t>(bytes.size()), stream);
    });
    if (error != cudaSuccess) return error;
    add_to_bins<<<1, kBins, 0, stream>>>(counted, bins.data());
    return cudaGetLastError();
  }
};

}  // namespace

APRIME_CUDA_KERNEL_AS(HistogramByCub, HistogramKernel, LeasedBytes<Right::read>,
                      LeasedBytes<Right::read_write>)

}  // namespace aprime::kernels
