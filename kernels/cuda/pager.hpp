#pragma once

#include "aprime/launch.hpp"

namespace aprime::cuda {

// detail::PagerKernel with its argument: of the file that nvcc compiles (pager.cu).

/// As CUDA starts it.
detail::CudaKernel::Start pager_start() noexcept;

}  // namespace aprime::cuda
