#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "aprime/detail/pager.hpp"
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

/// What the pager does where the kernel that it is for leaves no room for it.
void wait_for_end_of_session(const detail::KernelBody& pager) {
  using Call = detail::KernelCall<detail::PagerKernel, const detail::PagingPort*>;
  const detail::PagingPort& port = *std::get<0>(static_cast<const Call*>(pager.cuda.call)->arguments);
  const std::atomic_ref<std::uint64_t> leave(*port.pager_leave);
  while (leave.load() == 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
}

/// Kernels and closures of the Streaming tests wait for variables of the CPU. Those tests are left out on a
/// GPU (gpu_main.cpp).
bool is_for_cpu_only(const std::string& name) {
  for (const char* part : {"WaitTo", "WaitOnDemand", "LoadBeside", "lambda in"})
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
    fake_cuda::queue(stream, [body] {
      if (!fake_cuda::machine().has_room_for_pager) wait_for_end_of_session(body);
      // The last block has room when the first one has left.
      return run(body, Grid{{3}, {4}});
    });
  } else {
    fake_cuda::queue(stream, [body, grid] { return run(body, grid); });
  }
}

detail::CudaKernel::Start pager_start() noexcept { return nullptr; }

void start_task(detail::LaunchClosure& task, const std::string& name, cudaStream_t stream) {
  const detail::CudaTask cuda = task.task();
  require_cuda_version(cuda.run != nullptr, name);
  if (cuda.run != nullptr) cuda.run(cuda.call, stream);
  task.run_task();
}

}  // namespace aprime::cuda
