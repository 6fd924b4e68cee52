#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "aprime/detail/paging.hpp"
#include "aprime/detail/thread_cursor.hpp"
#include "aprime/device_span.hpp"
#include "aprime/error.hpp"
#include "aprime/grid.hpp"
#include "aprime/lease.hpp"

namespace aprime {

/// How a launch ended.
struct DeviceFaultStatus {
  Errc code = Errc::ok;
  /// The kernel's name, and what happened, in words, with file, offset and right where there are any.
  std::string kernel;
  std::string message;
  /// The file whose access failed; empty if the failure was not on a mapping.
  std::string path;
  ByteOffset offset{};
  int system_error = 0;
  bool was_write = false;

  bool is_ok() const noexcept { return code == Errc::ok; }
};

namespace detail {
struct CompletionState;
}

/// The end of a launch. Copies refer to the same launch. May be dropped: the launch runs to its end all the
/// same, and the runtime waits for it when it closes. Thread-safe.
class Completion {
 public:
  /// Of no launch: has ended, and well.
  Completion() = default;
  explicit Completion(std::shared_ptr<detail::CompletionState> state) noexcept;

  /// Blocks until the launch has ended and its rights are back. \throws Error if it did not end well.
  void wait() const;
  /// The same without throwing.
  DeviceFaultStatus status() const;
  bool done() const noexcept;

 private:
  std::shared_ptr<detail::CompletionState> state_;
};

/// How and where to launch.
struct LaunchOptions {
  /// Number of the device in `Runtime::devices()`.
  unsigned device = 0;
  /// Name for messages and profiles; the kernel's type if empty.
  std::string name{};
};

namespace detail {

/// Where the bytes of one request of a launch are.
struct LeasedMemory {
  /// Of a lease; null for what is faulted in on demand.
  std::byte* data;
  /// In bytes.
  std::size_t size;
  /// On demand: the file's window, and the first byte in it.
  PagedWindow window{};
  std::uint64_t first = 0;
};

/// A task with its arguments for CUDA, its type erased. `run` puts its work on a `cudaStream_t`; it may wait
/// for it, and throw. Null if no file of the program that nvcc compiled names the task.
struct CudaTask {
  using Run = void (*)(const void* call, void* stream);

  const void* call = nullptr;
  Run run = nullptr;
};

/// A launch whose arguments are known but whose leases are not yet placed.
class LaunchClosure {
 public:
  virtual ~LaunchClosure() = default;
  /// Makes the arguments final. `leased` holds one entry for each request, in the order of the launch's
  /// arguments.
  virtual void bind(std::span<const LeasedMemory> leased) = 0;
  /// The body for the grid executor; valid while the closure lives. \pre bind was called
  virtual KernelBody body() const noexcept = 0;
  /// Runs it once on the calling thread. \pre bind was called; the launch is a task
  virtual void run_task() = 0;
  /// The task for CUDA. \pre likewise
  virtual CudaTask task() const noexcept = 0;
};

/// What a kernel receives for an argument of a launch, and that before it is bound.
template <class A>
struct BoundArgument {
  using type = A;
  static constexpr bool is_request = false;
  static type unbound(const A& a) { return a; }
};
template <Right right>
struct BoundArgument<LeaseArgument<right>> {
  using type = LeasedBytes<right>;
  static constexpr bool is_request = true;
  static type unbound(const LeaseArgument<right>&) noexcept { return {}; }
  static type bind(const LeasedMemory& at) noexcept { return {at.data, at.size}; }
};
template <Right right>
struct BoundArgument<DemandArgument<right>> {
  using type = DemandBytes<right>;
  static constexpr bool is_request = true;
  static type unbound(const DemandArgument<right>&) noexcept { return {}; }
  static type bind(const LeasedMemory& at) noexcept { return {at.window, at.first, at.size}; }
};

/// For an argument taken as `const A&`, which an array may be: a kernel receives a pointer to it.
template <class A>
using ArgumentOf = BoundArgument<std::decay_t<const A&>>;
template <class A>
using Bound = typename ArgumentOf<A>::type;

/// A kernel (or task) and what it is called with.
template <class Kernel, class... BoundArgs>
struct KernelCall {
  Kernel kernel;
  std::tuple<BoundArgs...> arguments;
};

/// How CUDA starts a kernel and runs a task: null until a file that nvcc compiles says so
/// (APRIME_CUDA_KERNEL, APRIME_CUDA_TASK in aprime/cuda.hpp), which it does before main. `call` is a
/// KernelCall<Kernel, BoundArgs...>. Variables, so that the file with the launch, compiled by any compiler,
/// is the same with and without CUDA.
template <class Kernel, class... BoundArgs>
constinit inline CudaKernel::Start cuda_kernel = nullptr;
template <class Task, class... BoundArgs>
constinit inline CudaTask::Run cuda_task = nullptr;

/// What every closure does, whatever compiled the launch.
template <class Kernel, class... Args>
class BoundClosure : public LaunchClosure {
 public:
  BoundClosure(Kernel kernel, std::string name, const Args&... args)
      : call_{std::move(kernel), std::tuple<Bound<Args>...>(ArgumentOf<Args>::unbound(args)...)},
        name_(std::move(name)) {}

  void bind(std::span<const LeasedMemory> leased) final {
    std::size_t next = 0;
    bind_each(leased, next, std::index_sequence_for<Args...>{});
  }

 protected:
  KernelCall<Kernel, Bound<Args>...> call_;
  std::string name_;

 private:
  template <std::size_t... I>
  void bind_each([[maybe_unused]] std::span<const LeasedMemory> leased, [[maybe_unused]] std::size_t& next,
                 std::index_sequence<I...>) {
    (bind_one<I>(leased, next), ...);
  }
  template <std::size_t I>
  void bind_one([[maybe_unused]] std::span<const LeasedMemory> leased, [[maybe_unused]] std::size_t& next) {
    using Argument = std::tuple_element_t<I, std::tuple<ArgumentOf<Args>...>>;
    if constexpr (Argument::is_request) std::get<I>(call_.arguments) = Argument::bind(leased[next++]);
  }
};

/// The closure of a launch that a plain C++ compiler compiled: the emulated devices run it as it is, CUDA
/// runs what nvcc made of the same kernel.
template <class Kernel, class... Args>
class HostClosure final : public BoundClosure<Kernel, Args...> {
  using Base = BoundClosure<Kernel, Args...>;

 public:
  using Base::Base;

  KernelBody body() const noexcept override {
    return {this, &run_threads, this->name_.c_str(), {&this->call_, cuda_kernel<Kernel, Bound<Args>...>}};
  }
  void run_task() override { std::apply(this->call_.kernel, this->call_.arguments); }
  CudaTask task() const noexcept override { return {&this->call_, cuda_task<Kernel, Bound<Args>...>}; }

 private:
  /// Only instantiated for grids: a task's callable need not be callable as a kernel is.
  static void run_threads(const void* closure, ThreadCursor& cursor) {
    const auto* self = static_cast<const HostClosure*>(closure);
    const auto bound = self->call_.arguments;
    while (cursor.next()) std::apply(self->call_.kernel, bound);
  }
};

/// The compiler of the file that launches, as a type, so that what it instantiates has a name of its own: a
/// program may launch one kernel from files of both compilers.
struct HostCompiler {
  /// Whether what is launched can be called so.
  template <class Callable, class... BoundArgs>
  static constexpr bool can_call = std::is_invocable_v<Callable&, BoundArgs&...>;
  template <class Kernel, class... Args>
  using KernelClosure = HostClosure<Kernel, Args...>;
  template <class Task, class... Args>
  using TaskClosure = HostClosure<Task, Args...>;
};
struct NvccCompiler;  // aprime/cuda.hpp
#ifdef __CUDACC__
using ThisCompiler = NvccCompiler;
#else
using ThisCompiler = HostCompiler;
#endif

template <class A>
void collect_request(std::vector<LeaseRequest>&, const A&) {}
template <Right right>
void collect_request(std::vector<LeaseRequest>& out, const LeaseArgument<right>& a) {
  out.push_back(a.request);
}
template <Right right>
void collect_request(std::vector<LeaseRequest>& out, const DemandArgument<right>& a) {
  out.push_back(a.request);
}

template <class A>
inline constexpr bool is_on_demand = false;
template <Right right>
inline constexpr bool is_on_demand<DemandArgument<right>> = true;

/// Name of a type for people, without namespace noise.
std::string readable_name(const char* mangled);

}  // namespace detail

}  // namespace aprime
