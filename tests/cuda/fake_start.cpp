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

/// Kernels and closures of the Streaming tests wait for variables of the CPU. Those tests are left out on a
/// GPU (gpu_main.cpp).
bool is_for_cpu_only(const std::string& name) {
  for (const char* part : {"WaitTo", "WaitOnDemand", "LoadBeside", "}"})
    if (name.find(part) != std::string::npos) return true;
  return false;
}

/// On a GPU it would not run either.
void require_cuda_version(bool has_one, const std::string& name) {
  if (has_one || is_for_cpu_only(name)) return;
  throw Error(Errc::invalid_argument, name + " is not in the list of what nvcc compiles for the tests");
}

}  // namespace

void start_kernel(const detail::KernelBody& body, const Grid& grid, cudaStream_t stream) {
  require_cuda_version(body.cuda.start != nullptr || std::string(body.name) == "pager", body.name);
  if (std::string(body.name) == "pager") {
    fake_cuda::load(body.name);
    if (fake_cuda::priority_of(stream) != fake_cuda::kGreatestPriority)
      throw Error(Errc::device_failed, "a grid that fills the GPU could keep the pager out");
    // Its closure lives until the stream is synchronised.
    fake_cuda::queue(stream, [body] { return run(body, Grid{{1}, {4}}); });
  } else {
    fake_cuda::queue(stream, [body, grid] { return run(body, grid); });
  }
}

detail::CudaKernel::Start pager_start() noexcept { return nullptr; }
detail::CudaStart load_pager() noexcept {
  fake_cuda::load("pager");
  return {};
}

void start_task(detail::LaunchClosure& task, const std::string& name, cudaStream_t stream) {
  const detail::CudaTask cuda = task.task();
  require_cuda_version(cuda.run != nullptr, name);
  if (cuda.run != nullptr) cuda.run(cuda.call, stream);
  task.run_task();
}

}  // namespace aprime::cuda
