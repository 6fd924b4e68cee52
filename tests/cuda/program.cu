// A program whose launches nvcc compiles. On a GPU it computes; where there is none it must say why not.
// usage: cuda_program FILE (of float32 values, doubled in place)

#include <cstdio>
#include <cstring>
#include <string>

#include "aprime/aprime.hpp"

namespace {

struct Double {
  APRIME_DEVICE void operator()(aprime::LeasedSpan<float> x) const {
    const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < x.size()) x[i] = 2 * x[i];
  }
};

struct Clear {
  void operator()(cudaStream_t stream, aprime::LeasedSpan<float> x) const {
    cudaMemsetAsync(x.data(), 0, x.size() * sizeof(float), stream);
  }
};

bool is_refused(const aprime::Completion& launch) {
  const aprime::DeviceFaultStatus status = launch.status();
  std::printf("%s\n", status.message.c_str());
  return status.code == aprime::Errc::invalid_argument &&
         status.message.find("CUDA device only") != std::string::npos;
}

/// What only nvcc has compiled cannot run on an emulated device.
bool emulated_devices_refuse(const std::string& path) {
  aprime::RuntimeOptions options;
  options.devices[0].kind = aprime::DeviceKind::emulated_strict;
  aprime::Runtime runtime(options);
  const aprime::Mapping x = runtime.map(path, aprime::Access::read_write);
  return is_refused(runtime.launch(aprime::Grid{}, Double{}, aprime::read_write(x))) &&
         is_refused(runtime.launch_task({}, Clear{}, aprime::read_write(x)));
}

bool gpu_computes(const std::string& path) {
  aprime::RuntimeOptions options;
  options.devices[0].kind = aprime::DeviceKind::cuda;
  aprime::Runtime runtime(options);
  const aprime::Mapping x = runtime.map(path, aprime::Access::read_write);
  const float before = x.host<float>()[1];
  runtime.launch(aprime::Grid::cover(x.size<float>(), 256), Double{}, aprime::read_write(x)).wait();
  const float after = x.host<float>()[1];
  runtime.launch_task({}, Clear{}, aprime::read_write(x)).wait();
  return after == 2 * before && x.host<float>()[1] == 0;
}

}  // namespace

int main(int, char** arguments) {
  const std::string path = arguments[1];
  bool good = emulated_devices_refuse(path);
  int gpus = 0;
  if (cudaGetDeviceCount(&gpus) == cudaSuccess && gpus > 0) {
    good = gpu_computes(path) && good;
  } else {
    try {
      gpu_computes(path);
      good = false;
    } catch (const aprime::Error& error) {
      std::printf("%s\n", error.what());
      good = good && std::strstr(error.what(), "no CUDA device: ") != nullptr;
    }
  }
  return good ? 0 : 1;
}
