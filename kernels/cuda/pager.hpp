#pragma once

#include "aprime/launch.hpp"

namespace aprime::cuda {

// detail::PagerKernel with its argument: of the file that nvcc compiles (pager.cu).

/// As CUDA starts it.
detail::CudaKernel::Start pager_start() noexcept;
/// To be called before the first kernel that the pager is to run beside: see detail::load_on_cuda.
detail::CudaStart load_pager() noexcept;

}  // namespace aprime::cuda
