#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <memory>
#include <semaphore>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "aprime/detail/pager.hpp"
#include "host/device/demand_region.hpp"
#include "host/device/device_fault.hpp"
#include "host/device/paging.hpp"
#include "kernels/cuda/check.hpp"
#include "kernels/cuda/frames.hpp"
#include "kernels/cuda/pager.hpp"
#include "kernels/cuda/paging_memory.hpp"
#include "kernels/cuda/resources.hpp"
#include "kernels/cuda/start.hpp"

namespace aprime::cuda {
namespace {

/// The first GPU that the process may see.
constexpr int kGpu = 0;

/// More copy threads than this gain nothing: they read the page cache faster than a PCIe 5.0 link takes it.
constexpr unsigned kCopyThreadsMax = 10;

/// One block that looks, and others that copy. On an H200 eight of those answered a lone fault soonest, and
/// 64 ten times as late; more than 32 served many at once no faster.
constexpr Grid kPagerGrid{.blocks = {1 + 16}, .threads = {warp_lanes}};

struct Gpu {
  std::string name;
  unsigned multiprocessors;
};

Gpu look_at_gpu() {
  cudaDeviceProp properties{};
  APRIME_CUDA_THROW(cudaGetDeviceProperties, &properties, kGpu);
  return {fmt::format("{}, compute capability {}.{}", properties.name, properties.major, properties.minor),
          static_cast<unsigned>(properties.multiProcessorCount)};
}

DeviceInfo describe_gpu(const DeviceOptions& options, ByteCount memory) {
  const Gpu gpu = look_at_gpu();
  const bool managed = options.memory_kind == DeviceMemoryKind::managed;
  return {
      .name = "cuda",
      .description = fmt::format("{}; software-paged: a kernel may touch what its launch leased; frames in "
                                 "{} memory",
                                 gpu.name, managed ? "managed" : "device"),
      .chosen_because = {},
      .hardware_paged = false,
      .memory = memory,
      .workers = gpu.multiprocessors};
}

unsigned copy_threads() noexcept {
  const unsigned processors = std::thread::hardware_concurrency();
  return std::clamp(processors - processors / 4, 1u, kCopyThreadsMax);
}

class CudaDevice final : public device::Device, public device::PagingSource {
 public:
  CudaDevice(const DeviceOptions& options, ByteCount frame_bytes, FrameCount frames)
      : Device(describe_gpu(options, ByteCount{frames.value * frame_bytes.value}), frame_bytes, frames),
        copies_(kGpu, copy_threads()),
        memory_(kGpu, options.memory_kind, frame_bytes, info_.memory, copies_) {}

  std::unique_ptr<device::Region> attach(device::RegionParams params,
                                         device::FaultHandler& handler) override {
    names_.set(params.id, params.path);
    return std::make_unique<device::DemandRegion>(std::move(params), memory_, frame_bytes_, frames_, *this,
                                                  handler);
  }

  device::LaunchResult run(const detail::KernelBody& body, const Grid& grid,
                           std::span<device::Region* const> on_demand) override {
    if (const char* const problem = grid.problem(); problem != nullptr) throw std::invalid_argument(problem);
    APRIME_CUDA_THROW(cudaSetDevice, kGpu);
    if (on_demand.empty()) {
      start([&] { start_kernel(body, grid, kernels_.get()); });
      wait_for(fmt::format("kernel {}", body.name));
      return {};
    }
    return device::run_on_demand(*paging_, on_demand, [&]() -> device::LaunchResult {
      try {
        start([&] { start_kernel(body, grid, kernels_.get()); });
      } catch (...) {
        kernel_is_queued_.release();
        throw;
      }
      kernel_is_queued_.release();
      wait_for(fmt::format("kernel {}", body.name));
      return {};
    });
  }
  void run_task(detail::LaunchClosure& task, const std::string& name) override {
    APRIME_CUDA_THROW(cudaSetDevice, kGpu);
    start([&] {
      start_task(task, name, kernels_.get());
      // A kernel that CUDA did not start is told to nobody but who asks.
      if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess)
        throw Error(Errc::device_failed,
                    fmt::format("task {}: {}", name, failure_text("a call to CUDA in it", error)));
    });
    wait_for(fmt::format("task {}", name));
  }

  std::byte* frame_address(FrameIndex frame) noexcept override { return memory_.address(frame); }
  Status open_lease(device::Region& region, GranuleRange granules, Right right) noexcept override {
    return static_cast<device::FramedRegion&>(region).open_lease(granules, right);
  }
  void close_lease(device::Region& region, GranuleRange granules, Right right) noexcept override {
    static_cast<device::FramedRegion&>(region).close_lease(granules, right);
  }
  void describe(const device::KernelFault& fault, DeviceFaultStatus& out) const override {
    device::describe_fault(fault, names_, out);
  }

 private:
  /// Starts a launch by calling `queue`, which puts its work on `kernels_`. \throws what `queue` throws
  template <class Queue>
  void start(const Queue& queue) {
    // What somebody else's calls on this thread left behind.
    static_cast<void>(cudaGetLastError());
    try {
      queue();
    } catch (...) {
      // The caller gives the leases back, and some of the launch's work may be on the stream.
      APRIME_CUDA_END(cudaStreamSynchronize, kernels_.get());
      static_cast<void>(cudaGetLastError());
      throw;
    }
  }
  /// Until the launch has ended: its stores are visible to copies that are started afterwards.
  /// \throws Error(device_failed) what CUDA says of the kernel
  void wait_for(const std::string& launch) {
    Status status = APRIME_CUDA_TRY(cudaEventRecord, ended_.get(), kernels_.get());
    if (status.is_ok()) status = APRIME_CUDA_TRY(cudaEventSynchronize, ended_.get());
    if (status.is_ok()) return;
    // The caller gives the leases back: a kernel that runs must not be left alone with them.
    APRIME_CUDA_END(cudaStreamSynchronize, kernels_.get());
    throw Error(Errc::device_failed,
                fmt::format("{}: {}; what only the GPU had is lost with it", launch, status.reason));
  }

  device::Paging& paging() override {
    if (!paging_) {
      auto paging = std::make_unique<device::Paging>(paging_memory_, memory_.address(FrameIndex{0}),
                                                     [this](const detail::PagingPort* port) {
                                                       kernel_is_queued_.acquire();
                                                       return run_pager(port);
                                                     });
      // Only when it is started is a kernel's code brought to the GPU, and then it waits for all kernels that
      // run (CUDA C++ Programming Guide, "Lazy Loading"; cudaFuncGetAttributes does not do it). So it is
      // started once before there is one that it is for, and leaves at once.
      if (const Status status = run_pager(paging->port()); !status.is_ok())
        throw Error(status.code, status.reason);
      paging_ = std::move(paging);
    }
    return *paging_;
  }
  device::PagingMemory& paging_memory() noexcept override { return paging_memory_; }

  /// The pager, behind the kernel that it is for: where kernels do not run side by side (a tool runs one at a
  /// time), it must not be in that one's way. Threads that wait for a fault do without it.
  Status run_pager(const detail::PagingPort* port) noexcept {
    try {
      APRIME_CUDA_THROW(cudaSetDevice, kGpu);
      detail::HostClosure<detail::PagerKernel, const detail::PagingPort*> pager({}, "pager", port);
      pager.bind({});
      detail::KernelBody body = pager.body();
      body.cuda.start = pager_start();
      start_kernel(body, kPagerGrid, pager_stream_.get());
      // In the closure's scope: `body` refers to it, and may be run until here.
      return APRIME_CUDA_TRY(cudaStreamSynchronize, pager_stream_.get());
    } catch (const Error&) {
      return {Errc::device_failed, 0, {}, "the pager kernel does not start"};
    }
  }

  device::RegionNames names_;
  CopyThreads copies_;
  CudaFrames memory_;
  /// Where kernels run, one after another. Used by the device's launch queue only.
  Stream kernels_;
  Event ended_;

  // Faults inside kernels. The last one is made by the first launch that needs it.
  CudaPagingMemory paging_memory_{kGpu};
  /// Of two grids the GPU starts all blocks of the earlier one first, unless the later one is more urgent.
  Stream pager_stream_{Stream::Urgency::most};
  std::binary_semaphore kernel_is_queued_{0};
  std::unique_ptr<device::Paging> paging_;
};

/// What nvcc compiled for, as CMake writes it: "80-real" is code for GPUs of compute capability 8.0 and for
/// later ones with the same major number, "80-virtual" what the driver compiles for any later one, "80" both.
constexpr std::string_view kArchitectures = APRIME_CUDA_ARCHITECTURES;

bool has_code_for(int capability) {
  for (std::size_t at = 0; at < kArchitectures.size();) {
    const std::size_t end = std::min(kArchitectures.find(',', at), kArchitectures.size());
    const std::string_view architecture = kArchitectures.substr(at, end - at);
    int first = 0;
    std::from_chars(architecture.data(), architecture.data() + architecture.size(), first);
    if (first <= capability && (!architecture.ends_with("-real") || first / 10 == capability / 10))
      return true;
    at = end + 1;
  }
  return false;
}

std::string look_for_code() {
  int major = 0;
  int minor = 0;
  cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, kGpu);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, kGpu);
  if (error != cudaSuccess) return status_of(error, "cudaDeviceGetAttribute").reason;
  const int capability = 10 * major + minor;
  if (has_code_for(capability)) return {};
  return fmt::format("GPU {} is sm_{}, and this library was built for others (CMAKE_CUDA_ARCHITECTURES: {})",
                     kGpu, capability, kArchitectures);
}

std::string look_for_gpu() {
  // Without a driver CUDA leaves the count as it is, and documents no value.
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return look_for_code();
  if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
  if (error == cudaErrorInsufficientDriver || error == cudaErrorNoDevice || error == cudaSuccess) {
    int driver = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
      return "no NVIDIA driver is installed (nvidia-smi shows one that is)";
    if (error == cudaErrorInsufficientDriver)
      return fmt::format(
          "the NVIDIA driver supports CUDA {}.{}, and this library was built with {}.{}: update "
          "the driver",
          driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    return "the NVIDIA driver shows no GPU (see CUDA_VISIBLE_DEVICES)";
  }
  return failure_text("cudaGetDeviceCount", error);
}

}  // namespace
}  // namespace aprime::cuda

namespace aprime::device {

std::string why_no_cuda() { return cuda::look_for_gpu(); }

std::unique_ptr<Device> make_cuda(const DeviceOptions& options, ByteCount frame_bytes) {
  if (const std::string reason = why_no_cuda(); !reason.empty())
    throw Error(Errc::resources, "no CUDA device: " + reason);
  const cuda::CurrentGpu current(cuda::kGpu);
  return std::make_unique<cuda::CudaDevice>(options, frame_bytes, frames_in_budget(options, frame_bytes));
}

}  // namespace aprime::device
