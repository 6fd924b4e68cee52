#include "tests/contract/contract.hpp"

namespace aprime::contract {

std::vector<Personality> personalities() {
  return {{"cuda_device_memory", DeviceKind::cuda, false, false, DeviceMemoryKind::device},
          {"cuda_managed_memory", DeviceKind::cuda, false, false, DeviceMemoryKind::managed}};
}

}  // namespace aprime::contract
