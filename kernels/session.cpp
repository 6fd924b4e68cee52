#include "kernels/session.hpp"

namespace aprime::kernels {

ByteCount Session::lease_bytes(unsigned leases, ByteCount extra) const {
  const std::uint64_t granules = device_memory_.value / 2 / granule_.value;
  // A range that starts within a granule takes one granule more than its size says.
  const std::uint64_t fixed = leases + (extra.value + granule_.value - 1) / granule_.value;
  if (granules < fixed + leases) {
    const std::uint64_t needed = 2 * (fixed + leases) * granule_.value;
    throw InputError("device memory of " + std::to_string(device_memory_.value) +
                     " bytes is too small: one launch needs " + std::to_string(needed / 2) +
                     " bytes, and twice that to overlap transfers; give --device-memory " +
                     std::to_string((needed + 1023) / 1024) + "K or more");
  }
  return ByteCount{(granules - fixed) / leases * granule_.value};
}

}  // namespace aprime::kernels
