#include "kernels/cuda/pager.hpp"

#include "aprime/cuda.hpp"
#include "aprime/detail/pager.hpp"

namespace aprime::cuda {
namespace {

/// With so few registers that it finds room beside a kernel whose 32 warps have 56 each: the four parts of a
/// multiprocessor have registers of their own, 16,384.
constexpr int kWarpsBesideEachOther = 32;

// As if a block had two warps: some GPUs take no more than 16 blocks to a multiprocessor.
__global__ void __launch_bounds__(2 * warp_lanes, kWarpsBesideEachOther / 2)
    run_pager(const detail::PagingPort* port) {
  detail::PagerKernel{}(port);
}

}  // namespace

detail::CudaKernel::Start pager_start() noexcept {
  return [](const void* call, const Grid& grid, void* stream) -> detail::CudaStart {
    const auto& self =
        *static_cast<const detail::KernelCall<detail::PagerKernel, const detail::PagingPort*>*>(call);
    run_pager<<<grid.blocks.x, grid.threads.x, 0, static_cast<cudaStream_t>(stream)>>>(
        std::get<0>(self.arguments));
    return {static_cast<int>(cudaGetLastError()), "cudaLaunchKernel"};
  };
}

}  // namespace aprime::cuda
