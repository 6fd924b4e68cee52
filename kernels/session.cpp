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

void Session::add(Completion launch) {
  queued_.push_back({std::move(launch)});
  while (queued_.size() > kQueuedMax) await_oldest();
}

void Session::advance_then(ByteCount done) {
  if (queued_.empty()) {
    progress_.advance(done);
    return;
  }
  queued_.back().done = queued_.back().done + done;
  queued_.back().advances = true;
}

void Session::finish() {
  while (!queued_.empty()) await_oldest();
}

void Session::await_oldest() {
  const Queued oldest = std::move(queued_.front());
  queued_.pop_front();
  try {
    oldest.launch.wait();
    if (oldest.advances) progress_.advance(oldest.done);
  } catch (...) {
    for (const Queued& queued : queued_) static_cast<void>(queued.launch.status());
    queued_.clear();
    throw;
  }
}

}  // namespace aprime::kernels
