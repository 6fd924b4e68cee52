#pragma once

#include <span>
#include <vector>

#include "host/engine/coherent_file.hpp"

namespace aprime::engine {

struct FileRequest;

/// Keeps launches that lease some files and fault on others from waiting in a circle with whoever leases.
///
/// A launch that only leases waits for a granule before it runs, and for nothing afterwards; one that only
/// faults keeps no granule while it waits. One that does both waits with granules in its hands. It therefore
/// has the files that it may fault on to itself, as far as the taking of leases goes, from before it takes
/// its own until it ends: whoever has a granule there has all that it wants, and waits for nothing but, if it
/// faults too, for launches that had all before it. Everybody passes the gates of his files in one order,
/// with no granule in his hands yet. The host's leases pass none: they wait with no granule in their hands
/// (CoherentFile::pin_together).
class LeaseGates {
 public:
  /// Passes nothing.
  LeaseGates() = default;
  /// Waits for launches that keep one of the files to themselves, or take leases of one that this launch will
  /// have to itself.
  explicit LeaseGates(std::span<const FileRequest> requests);
  /// The launch has ended.
  ~LeaseGates();
  LeaseGates(const LeaseGates&) = delete;
  LeaseGates& operator=(const LeaseGates&) = delete;

  /// The launch has its leases.
  void leases_are_taken() noexcept;

 private:
  struct Passed {
    CoherentFile* file;
    bool alone;
  };
  std::vector<Passed> passed_;
};

}  // namespace aprime::engine
