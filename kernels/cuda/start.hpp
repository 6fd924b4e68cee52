#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "aprime/launch.hpp"

namespace aprime::cuda {

// The only place where kernels meet the CUDA device. The tests that run it over a stand-in for the CUDA
// runtime put their own there, because their kernels have no code for a GPU.

/// Queues a kernel on a stream. \throws Error(invalid_argument) if nvcc has not compiled it;
/// Error(device_failed)
void start_kernel(const detail::KernelBody& body, const Grid& grid, cudaStream_t stream);

/// Runs a task, whose work may still be on the stream when it returns. \throws Error(invalid_argument) if it
/// has no CUDA version; what the task throws
void start_task(detail::LaunchClosure& task, const std::string& name, cudaStream_t stream);

}  // namespace aprime::cuda
