#pragma once

#include "tests/contract/cuda_kernels.hpp"
#include "tests/stress/byte_kernels.hpp"
#include "tests/stress/plan_kernels.hpp"

// Which kernels and tasks of their own the tests under stress/ launch on a CUDA device: as in
// contract/cuda_kernels.hpp. To be used in this namespace.

namespace aprime::stress {

using contract::DemandReadWrite;
using contract::Read;
using contract::ReadWrite;
using contract::Write;

}  // namespace aprime::stress

#define APRIME_STRESS_KERNELS(KERNEL)                \
  KERNEL(FollowLeased, Read, ReadWrite, ReadWrite)   \
  KERNEL(FollowOnDemand, DemandReadWrite, ReadWrite) \
  KERNEL(OverwriteWords, Read, Write)                \
  KERNEL(StoreBytes, ReadWrite)                      \
  KERNEL(StoreBytes, Write)

#define APRIME_STRESS_TASKS(TASK)              \
  TASK(FollowTask, Read, ReadWrite, ReadWrite) \
  TASK(StoreBytesTask, ReadWrite)              \
  TASK(StoreBytesTask, Write)
