#include "tests/contract/contract.hpp"

namespace aprime::contract {

std::vector<Personality> personalities() {
  return {{"emulated", DeviceKind::emulated, false},
          {"emulated_without_userfaultfd", DeviceKind::emulated, true},
          {"emulated_strict", DeviceKind::emulated_strict, false}};
}

}  // namespace aprime::contract
