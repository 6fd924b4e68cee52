#include "kernels/cuda/pager.hpp"

#include "aprime/cuda.hpp"
#include "aprime/detail/pager.hpp"

namespace aprime::cuda {

detail::CudaKernel::Start pager_start() noexcept {
  return &detail::start_on_cuda<detail::PagerKernel, const detail::PagingPort*>;
}

detail::CudaStart load_pager() noexcept {
  return detail::load_on_cuda<detail::PagerKernel, const detail::PagingPort*>();
}

}  // namespace aprime::cuda
