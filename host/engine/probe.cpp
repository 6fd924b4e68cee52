#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "aprime/mount.hpp"
#include "aprime/runtime.hpp"
#include "host/device/device.hpp"
#include "host/os/memory.hpp"
#include "host/os/userfault.hpp"
#include "host/trace/trace.hpp"

namespace aprime {
namespace {

std::string first_line_of(const char* path) {
  std::string line;
  std::ifstream in(path);
  std::getline(in, line);
  return line;
}

Feature userfaultfd_feature() {
  const std::string reason = os::UserfaultMemory::why_unavailable();
  Feature f{"userfaultfd", reason.empty(), "missing and write-protect faults, user mode, as SIGBUS", {}, {}};
  if (f.available) return f;
  f.detail = reason;
  f.cost =
      "the emulated device traps with mprotect instead: each fault is slower, and scattered rights use "
      "memory areas";
  f.remedy = "run a kernel from 5.11 on, outside a container whose seccomp profile refuses userfaultfd(2)";
  return f;
}

Feature page_size_feature() {
  const long page = sysconf(_SC_PAGESIZE);
  Feature f{"page-size", page == static_cast<long>(os::kPageBytes), fmt::format("{} bytes", page), {}, {}};
  if (!f.available) {
    f.cost = "runtimes cannot be made: granules begin at 4096 bytes";
    f.remedy = "run a kernel with 4 KiB pages";
  }
  return f;
}

Feature area_feature() {
  constexpr unsigned long kUsual = os::kMemoryAreasUsual;
  const std::string text = first_line_of("/proc/sys/vm/max_map_count");
  const unsigned long areas = std::strtoul(text.c_str(), nullptr, 10);
  Feature f{"memory-areas",
            areas >= kUsual,
            fmt::format("vm.max_map_count is {}", text.empty() ? "unknown" : text),
            {},
            {}};
  if (!f.available) {
    f.cost = "scattered rights are taken from wider spans sooner, which costs spurious faults";
    f.remedy = fmt::format("sysctl vm.max_map_count={}", kUsual);
  }
  return f;
}

Feature cuda_feature() {
  const std::string obstacle = device::why_no_cuda();
  Feature f{"cuda", obstacle.empty(), obstacle.empty() ? "there is a GPU" : obstacle, {}, {}};
  if (f.available) return f;
  f.cost = "kernels run on the CPU, by the emulated device";
  f.remedy = "an NVIDIA GPU since Turing with its driver, and a build with APRIME_ENABLE_CUDA=ON";
  return f;
}

Feature processor_feature() {
  const unsigned n = std::thread::hardware_concurrency();
  return {"processors", n > 0, fmt::format("{} for kernels of the emulated device", n), {}, {}};
}

/// The absence of NVTX is a property of the build, not of the machine, but what it costs is alike.
Feature nvtx_feature() {
  Feature f{"nvtx", trace::kIsBuiltIn, "built without profiler ranges", {}, {}};
  if constexpr (trace::kIsBuiltIn) {
    f.detail =
        trace::has_counters()
            ? "profiler ranges and counters, domain aprime; a branch each while no profiler is attached"
            : "profiler ranges, domain aprime; a branch each while no profiler is attached";
  } else {
    f.cost = "a profiler does not see faults, fills, copies back, leases and launches";
    f.remedy =
        "install the CUDA toolkit, or the headers of github.com/NVIDIA/NVTX, and configure with "
        "-DAPRIME_ENABLE_NVTX=ON";
  }
  return f;
}

/// So is that of the mount, which needs a device of the machine besides.
Feature mount_feature() {
  const int error = ::access("/dev/fuse", R_OK | W_OK) == 0 ? 0 : errno;
  Feature f{"mount", can_mount() && error == 0, "libfuse 3 and /dev/fuse", {}, {}};
  if (f.available) return f;
  f.detail = can_mount() ? fmt::format("/dev/fuse: {}", std::strerror(error)) : "built without libfuse 3";
  f.cost = "other programs see what devices store after a sync only";
  f.remedy = can_mount() ? "load the kernel's fuse module, or allow the container to use /dev/fuse"
                         : "install libfuse3-dev, and configure with -DAPRIME_ENABLE_MOUNT=ON";
  return f;
}

}  // namespace

std::vector<Feature> probe_features() {
  return {cuda_feature(),      userfaultfd_feature(), area_feature(), page_size_feature(),
          processor_feature(), mount_feature(),       nvtx_feature()};
}

}  // namespace aprime
