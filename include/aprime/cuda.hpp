#pragma once

// For files that nvcc compiles: how a kernel gets to the GPU. In other files it is empty.
//
// Host code is compiled once, by a plain C++ compiler, and launches on every kind of device. Each kernel is
// compiled a second time, by nvcc, in a file that names it:
//
//   #include <aprime/cuda.hpp>
//   #include "saxpy.hpp"
//   APRIME_CUDA_KERNEL(Saxpy, float, aprime::LeasedBytes<aprime::Right::read>,
//                      aprime::LeasedBytes<aprime::Right::read_write>)
//
// The types after the kernel's are those of the launch's arguments, `LeasedBytes<right>` for each lease. A
// launch of a kernel that no such file names fails on a CUDA device with an error that says so. Link such a
// file as an object: of a static library, the linker takes only what something refers to.
//
// A program whose launches nvcc compiles needs no such line, and runs on CUDA only.

#ifdef __CUDACC__

#include <cstddef>
#include <string>
#include <tuple>
#include <type_traits>

#include "aprime/error.hpp"
#include "aprime/grid.hpp"
#include "aprime/kernel.hpp"
#include "aprime/launch.hpp"
#include "aprime/lease.hpp"

namespace aprime::detail {

/// Dynamic shared memory beyond this must be asked for (CUDA C++ Programming Guide, "Shared Memory").
inline constexpr std::size_t cuda_shared_bytes_default = 48 * 1024;

/// Whether a copy is its bytes. How a value is assigned to another, where std::pair is not trivial, is no
/// matter.
template <class T>
inline constexpr bool is_copied_as_bytes =
    std::is_trivially_copy_constructible_v<T>&& std::is_trivially_destructible_v<T>;

template <class Kernel, class... BoundArgs>
__global__ void run_on_cuda(const Kernel kernel, const BoundArgs... arguments) {
  kernel(arguments...);
}

/// \pre `call` is a KernelCall<Kernel, BoundArgs...>
template <class Kernel, class... BoundArgs>
CudaStart start_on_cuda(const void* call, const Grid& grid, void* stream) {
  static_assert((is_copied_as_bytes<Kernel> && ... && is_copied_as_bytes<BoundArgs>),
                "a kernel and its arguments are copied to the GPU byte by byte");
  const auto& self = *static_cast<const KernelCall<Kernel, BoundArgs...>*>(call);
  const auto* const function = reinterpret_cast<const void*>(&run_on_cuda<Kernel, BoundArgs...>);
  if (grid.shared_bytes > cuda_shared_bytes_default) {
    const cudaError_t error = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(grid.shared_bytes));
    if (error != cudaSuccess) return {static_cast<int>(error), "cudaFuncSetAttribute"};
  }
  const dim3 blocks(grid.blocks.x, grid.blocks.y, grid.blocks.z);
  const dim3 threads(grid.threads.x, grid.threads.y, grid.threads.z);
  return std::apply(
      [&](const BoundArgs&... bound) -> CudaStart {
        void* arguments[] = {const_cast<void*>(static_cast<const void*>(&self.kernel)),
                             const_cast<void*>(static_cast<const void*>(&bound))...};
        const cudaError_t started = cudaLaunchKernel(function, blocks, threads, arguments, grid.shared_bytes,
                                                     static_cast<cudaStream_t>(stream));
        return {static_cast<int>(started), "cudaLaunchKernel"};
      },
      self.arguments);
}

/// \pre likewise
template <class Function, class Kernel, class... BoundArgs>
CudaStart start_instead_on_cuda(const void* call, const Grid& /*grid*/, void* stream) {
  const auto& self = *static_cast<const KernelCall<Kernel, BoundArgs...>*>(call);
  return std::apply(
      [&](const BoundArgs&... bound) -> CudaStart {
        const cudaError_t error = Function{}(static_cast<cudaStream_t>(stream), self.kernel, bound...);
        return {static_cast<int>(error), "its CUDA version"};
      },
      self.arguments);
}

/// \pre likewise
template <class Function, class Task, class... BoundArgs>
void run_task_on_cuda(const void* call, void* stream) {
  const auto& self = *static_cast<const KernelCall<Task, BoundArgs...>*>(call);
  std::apply(
      [&](const BoundArgs&... bound) {
        Function{}(static_cast<cudaStream_t>(stream), self.kernel, bound...);
      },
      self.arguments);
}

template <class Kernel, class... BoundArgs>
bool register_cuda_kernel() noexcept {
  cuda_kernel<Kernel, BoundArgs...> = &start_on_cuda<Kernel, BoundArgs...>;
  return true;
}

template <class Function, class Kernel, class... BoundArgs>
bool register_cuda_kernel_as() noexcept {
  cuda_kernel<Kernel, BoundArgs...> = &start_instead_on_cuda<Function, Kernel, BoundArgs...>;
  return true;
}

template <class Function, class Task, class... BoundArgs>
bool register_cuda_task() noexcept {
  cuda_task<Task, BoundArgs...> = &run_task_on_cuda<Function, Task, BoundArgs...>;
  return true;
}

/// The closures of launches that nvcc compiled. What only the GPU can run has no body for the emulated
/// devices.
template <class Kernel, class... Args>
class NvccKernelClosure final : public BoundClosure<Kernel, Args...> {
  using Base = BoundClosure<Kernel, Args...>;

 public:
  using Base::Base;

  KernelBody body() const noexcept override {
    return {nullptr, nullptr, this->name_.c_str(), {&this->call_, &start_on_cuda<Kernel, Bound<Args>...>}};
  }
  void run_task() override {}
  CudaTask task() const noexcept override { return {}; }
};

template <class Task, class... Args>
class NvccTaskClosure final : public BoundClosure<Task, Args...> {
  using Base = BoundClosure<Task, Args...>;
  struct CallWithStream {
    template <class... BoundArgs>
    void operator()(cudaStream_t stream, const Task& task, const BoundArgs&... bound) const {
      task(stream, bound...);
    }
  };

 public:
  using Base::Base;

  KernelBody body() const noexcept override { return {}; }
  void run_task() override {
    throw Error(Errc::invalid_argument,
                this->name_ + ": nvcc compiled this task, so it runs on a CUDA device only");
  }
  CudaTask task() const noexcept override {
    return {&this->call_, &run_task_on_cuda<CallWithStream, Task, Bound<Args>...>};
  }
};

struct NvccCompiler {
  /// nvcc says itself what cannot be called: it alone knows a lambda that is for the GPU only.
  template <class Callable, class... BoundArgs>
  static constexpr bool can_call = true;
  template <class Kernel, class... Args>
  using KernelClosure = NvccKernelClosure<Kernel, Args...>;
  template <class Task, class... Args>
  using TaskClosure = NvccTaskClosure<Task, Args...>;
};

}  // namespace aprime::detail

#define APRIME_CUDA_JOIN_(a, b) a##b
#define APRIME_CUDA_NAME_(number) APRIME_CUDA_JOIN_(aprime_cuda_registration_, number)

/// Compiles a kernel for the GPU: the kernel's type, then those of the arguments it is launched with. At
/// namespace scope.
#define APRIME_CUDA_KERNEL(...)                                \
  namespace {                                                  \
  [[maybe_unused]] const bool APRIME_CUDA_NAME_(__COUNTER__) = \
      ::aprime::detail::register_cuda_kernel<__VA_ARGS__>();   \
  }

/// Lets a CUDA device do something else, with the same result, when a kernel is launched: the type of a
/// function object, then the kernel's, then those of its arguments. It is called as
/// `Function{}(cudaStream_t, const Kernel&, arguments...)`, puts its work on the stream and returns a
/// cudaError_t.
#define APRIME_CUDA_KERNEL_AS(...)                              \
  namespace {                                                   \
  [[maybe_unused]] const bool APRIME_CUDA_NAME_(__COUNTER__) =  \
      ::aprime::detail::register_cuda_kernel_as<__VA_ARGS__>(); \
  }

/// Says how a task (`Runtime::launch_task`) runs on a CUDA device: the type of a function object, then the
/// task's, then those of its arguments. It is called as `Function{}(cudaStream_t, const Task&,
/// arguments...)`, and puts its work on the stream, where it has ended when the launch completes. An error of
/// CUDA that it leaves behind, of a kernel that did not start for instance, is the launch's.
#define APRIME_CUDA_TASK(...)                                  \
  namespace {                                                  \
  [[maybe_unused]] const bool APRIME_CUDA_NAME_(__COUNTER__) = \
      ::aprime::detail::register_cuda_task<__VA_ARGS__>();     \
  }

#endif
