#pragma once

#include "aprime/launch.hpp"

// What stands in for nvcc: a kernel that is named here has a CUDA version as far as a launch can tell. The
// stand-in for the CUDA runtime runs its CPU code, and refuses kernels that are not named.

namespace aprime::fake_cuda {

template <class Kernel, class... Args>
bool name_kernel() noexcept {
  detail::cuda_kernel<Kernel, Args...> = [](const void*, const Grid&, void*) { return detail::CudaStart{}; };
  return true;
}

template <class Task, class... Args>
bool name_task() noexcept {
  detail::cuda_task<Task, Args...> = [](const void*, void*) {};
  return true;
}

}  // namespace aprime::fake_cuda

#define FAKE_CUDA_JOIN_(a, b) a##b
#define FAKE_CUDA_NAME_(number) FAKE_CUDA_JOIN_(fake_cuda_named_, number)

/// In place of APRIME_CUDA_KERNEL. At namespace scope.
#define FAKE_CUDA_KERNEL(...)                                \
  namespace {                                                \
  [[maybe_unused]] const bool FAKE_CUDA_NAME_(__COUNTER__) = \
      ::aprime::fake_cuda::name_kernel<__VA_ARGS__>();       \
  }
/// In place of APRIME_CUDA_TASK, without the function object.
#define FAKE_CUDA_TASK(...)                                                                                 \
  namespace {                                                                                               \
  [[maybe_unused]] const bool FAKE_CUDA_NAME_(__COUNTER__) = ::aprime::fake_cuda::name_task<__VA_ARGS__>(); \
  }
