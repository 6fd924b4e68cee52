// The contract suite and the stress tests on a real GPU. Where there is none this says so, and runs nothing
// but what needs none: --gtest_filter='CudaRegistration.*'. Left out are the Streaming tests: their kernels
// wait for variables of the CPU, which a GPU need not reach.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "aprime/aprime.hpp"

namespace {

/// Empty if there is a GPU.
std::string why_no_gpu() {
  try {
    const aprime::Runtime runtime(aprime::RuntimeOptions{.devices = {{.kind = aprime::DeviceKind::cuda}}});
    return {};
  } catch (const aprime::Error& error) {
    return error.what();
  }
}

}  // namespace

int main(int argc, char** argv) {
  // Some tests have several devices, which are all one GPU. The first use of one's kernel may wait there for
  // another's that runs (CUDA C++ Programming Guide, "Lazy Loading"), and that one for leases of the first.
  ::setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  testing::InitGoogleTest(&argc, argv);
  const bool needs_gpu =
      !testing::GTEST_FLAG(list_tests) && testing::GTEST_FLAG(filter).rfind("CudaRegistration.", 0) != 0;
  if (const std::string reason = needs_gpu ? why_no_gpu() : std::string(); !reason.empty()) {
    std::fprintf(stderr, "%s: nothing was run, because these tests need a GPU: %s\n", argv[0],
                 reason.c_str());
    return 1;
  }
  std::string& filter = testing::GTEST_FLAG(filter);
  filter += filter.find('-') == std::string::npos ? "-*Streaming.*" : ":*Streaming.*";
  return RUN_ALL_TESTS();
}
