#include "kernels/cuda/start.hpp"

#include <fmt/format.h>

#include "kernels/cuda/check.hpp"

namespace aprime::cuda {
namespace {

[[noreturn]] void refuse(const char* what, const std::string& name, const char* macro) {
  throw Error(Errc::invalid_argument,
              fmt::format("{} {} has no CUDA version: name it by {} (aprime/cuda.hpp) in a file that nvcc "
                          "compiles and link that file as an object, or launch it on an emulated device",
                          what, name, macro));
}

std::string reason_of(const detail::CudaStart& start) {
  const auto error = static_cast<cudaError_t>(start.error);
  const std::string text = failure_text(start.call, error);
  switch (error) {
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      return text + "; the program holds no code for this GPU: build with its CMAKE_CUDA_ARCHITECTURES";
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorInsufficientDriver:
      return text + "; the driver is older than the CUDA toolkit of this program: update it";
    case cudaErrorLaunchOutOfResources:
      return text + "; the kernel needs more registers than blocks of this size have: use fewer threads";
    default: return text;
  }
}

}  // namespace

void start_kernel(const detail::KernelBody& body, const Grid& grid, cudaStream_t stream) {
  if (body.cuda.start == nullptr) refuse("kernel", body.name, "APRIME_CUDA_KERNEL");
  const detail::CudaStart start = body.cuda.start(body.cuda.call, grid, stream);
  if (start.error == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  throw Error(Errc::device_failed, fmt::format("kernel {}: {}", body.name, reason_of(start)));
}

void start_task(detail::LaunchClosure& closure, const std::string& name, cudaStream_t stream) {
  const detail::CudaTask task = closure.task();
  if (task.run == nullptr) refuse("task", name, "APRIME_CUDA_TASK");
  task.run(task.call, stream);
}

}  // namespace aprime::cuda
