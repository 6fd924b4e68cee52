#include "host/engine/lease_gates.hpp"

#include <algorithm>
#include <functional>

#include "host/engine/device_lease.hpp"

namespace aprime::engine {

LeaseGates::LeaseGates(std::span<const FileRequest> requests) {
  const auto is_leased = [](const FileRequest& r) { return !r.on_demand; };
  if (std::none_of(requests.begin(), requests.end(), is_leased)) return;
  for (const FileRequest& r : requests) passed_.push_back({r.file.get(), r.on_demand});
  // Each file once, alone if need be.
  std::sort(passed_.begin(), passed_.end(), [](const Passed& a, const Passed& b) {
    return a.file != b.file ? std::less<>{}(a.file, b.file) : a.alone > b.alone;
  });
  const auto same_file = [](const Passed& a, const Passed& b) { return a.file == b.file; };
  passed_.erase(std::unique(passed_.begin(), passed_.end(), same_file), passed_.end());
  for (const Passed& p : passed_) p.alone ? p.file->lease_gate().lock() : p.file->lease_gate().lock_shared();
}

LeaseGates::~LeaseGates() {
  leases_are_taken();
  for (const Passed& p : passed_) p.file->lease_gate().unlock();
}

void LeaseGates::leases_are_taken() noexcept {
  std::erase_if(passed_, [](const Passed& p) {
    if (!p.alone) p.file->lease_gate().unlock_shared();
    return !p.alone;
  });
}

}  // namespace aprime::engine
