#include <memory>
#include <string>

#include "host/device/device.hpp"

// The CUDA device of a library that was built without it.

namespace aprime::device {

std::string why_no_cuda() {
  return "this library was built without CUDA (install the CUDA toolkit and build with "
         "APRIME_ENABLE_CUDA=ON)";
}

std::unique_ptr<Device> make_cuda(const DeviceOptions& /*options*/, ByteCount /*frame_bytes*/) {
  throw Error(Errc::resources, "no CUDA device: " + why_no_cuda());
}

}  // namespace aprime::device
