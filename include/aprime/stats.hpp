#pragma once

#include <cstdint>

namespace aprime {

/// Faults that were served, by who took them and what for.
struct FaultStats {
  std::uint64_t device_read = 0;
  std::uint64_t device_write = 0;
  std::uint64_t host_read = 0;
  std::uint64_t host_write = 0;
};

/// What a runtime, or one of its devices, has done since it was made. A snapshot: each number is exact once
/// the work that causes it has ended; numbers taken during work need not belong to the same instant.
struct Stats {
  FaultStats faults;
  /// Granules whose bytes were copied from home to a device, and back. The kernel's HMM tests call these
  /// "moved".
  std::uint64_t granules_filled = 0;
  std::uint64_t granules_copied_back = 0;
  std::uint64_t bytes_filled = 0;
  std::uint64_t bytes_copied_back = 0;
  /// Bytes that `read` and `write` moved to or from a device's copy without moving ownership.
  std::uint64_t bytes_bounced = 0;
  /// Granules that lost their frame to make room for another.
  std::uint64_t evictions = 0;
  /// Faults that found the right already there (over-protection, or another thread was faster).
  std::uint64_t spurious_faults = 0;
  /// Accesses that were delayed because a granule went to and fro between sides.
  std::uint64_t throttled = 0;
  /// Failed attempts to copy dirty bytes home.
  std::uint64_t writeback_errors = 0;
  /// Times that rights were taken away from more granules than needed because memory areas ran short.
  std::uint64_t over_protections = 0;
  /// Bytes that exist only on a device now.
  std::uint64_t dirty_bytes = 0;
  /// Bytes of device memory in use now.
  std::uint64_t resident_bytes = 0;
};

}  // namespace aprime
