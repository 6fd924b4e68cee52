// The contract suite's kernels for the GPU.

#include "tests/contract/cuda_kernels.hpp"

#include <vector>

#include "aprime/cuda.hpp"

namespace aprime::contract {
namespace {

/// How a task runs on the GPU.
template <class Task>
struct OnCuda;

__global__ void double_bytes(LeasedSpan<Byte> bytes) {
  for (std::size_t i = first_index(); i < bytes.size(); i += index_step())
    bytes[i] = static_cast<Byte>(2 * bytes[i]);
}

template <>
struct OnCuda<DoubleBytes> {
  void operator()(cudaStream_t stream, const DoubleBytes&, LeasedSpan<Byte> bytes) const {
    double_bytes<<<4, 64, 0, stream>>>(bytes);
  }
};

template <>
struct OnCuda<RequireNonZero> {
  void operator()(cudaStream_t stream, const RequireNonZero& task, LeasedSpan<const Byte> bytes) const {
    std::vector<Byte> copy(bytes.size());
    if (cudaMemcpyAsync(copy.data(), bytes.data(), copy.size(), cudaMemcpyDeviceToHost, stream) !=
            cudaSuccess ||
        cudaStreamSynchronize(stream) != cudaSuccess)
      throw std::runtime_error("the bytes cannot be copied to the CPU");
    task({copy.data(), copy.size()});
  }
};

__global__ void reverse_bytes(LeasedSpan<Byte> bytes) {
  for (std::size_t i = first_index(); i < bytes.size() / 2; i += index_step()) {
    const Byte kept = bytes[i];
    bytes[i] = bytes[bytes.size() - 1 - i];
    bytes[bytes.size() - 1 - i] = kept;
  }
}

template <>
struct OnCuda<ReverseBytes> {
  void operator()(cudaStream_t stream, const ReverseBytes&, LeasedSpan<Byte> bytes) const {
    reverse_bytes<<<4, 64, 0, stream>>>(bytes);
  }
};

/// What needs nothing of the GPU.
template <>
struct OnCuda<TellAddress> {
  void operator()(cudaStream_t, const TellAddress& task, LeasedSpan<const Byte> bytes) const { task(bytes); }
};
template <>
struct OnCuda<TellSum> {
  void operator()(cudaStream_t, const TellSum& task, Words words) const { task(words); }
};

template <>
struct OnCuda<ThrowFromTask> {
  void operator()(cudaStream_t, const ThrowFromTask& task) const { task(); }
  void operator()(cudaStream_t, const ThrowFromTask& task, LeasedSpan<Byte> bytes) const { task(bytes); }
};

}  // namespace

#define TASK(Task, ...) APRIME_CUDA_TASK(OnCuda<Task>, Task __VA_OPT__(, ) __VA_ARGS__)
APRIME_CONTRACT_KERNELS(APRIME_CUDA_KERNEL)
APRIME_CONTRACT_TASKS(TASK)
#undef TASK

}  // namespace aprime::contract
