#include <string>

#include "host/device/executor.hpp"
#include "kernels/cuda/pager.hpp"
#include "kernels/cuda/start.hpp"
#include "tests/cuda/fake_runtime.hpp"

// Kernels on the stand-in for the CUDA runtime: their CPU code, on the stream's time.

namespace aprime::cuda {
namespace {

/// Streams run side by side, so each has processors of its own. A thread that ends its kernel because of a
/// fault leaves it on a GPU, and the kernel goes on.
bool run(const detail::KernelBody& body, const Grid& grid) {
  thread_local device::Executor processors(2);
  const device::LaunchResult result = processors.run(body, grid);
  return result.completed() || result.outcome == device::LaunchOutcome::fault;
}

}  // namespace

void start_kernel(const detail::KernelBody& body, const Grid& grid, cudaStream_t stream) {
  if (std::string(body.name) == "pager") {
    // Its closure lives until the stream is synchronised.
    fake_cuda::queue(stream, [body] { return run(body, Grid{{1}, {4}}); });
  } else {
    fake_cuda::queue(stream, [body, grid] { return run(body, grid); });
  }
}

detail::CudaKernel::Start pager_start() noexcept { return nullptr; }

void start_task(detail::LaunchClosure& task, const std::string& /*name*/, cudaStream_t /*stream*/) {
  task.run_task();
}

}  // namespace aprime::cuda
