#pragma once

#include "aprime/launch.hpp"

namespace aprime::cuda {

/// detail::PagerKernel with its argument, as CUDA starts it. Of the file that nvcc compiles (pager.cu).
detail::CudaKernel::Start pager_start() noexcept;

}  // namespace aprime::cuda
