#pragma once

#include <atomic>
#include <cstdint>

#include "aprime/stats.hpp"

namespace aprime::engine {

/// The live form of Stats: relaxed counters, one set for each device and one for the host side.
struct alignas(64) Counters {
  using Count = std::atomic<std::uint64_t>;
  Count read_faults{0};
  Count write_faults{0};
  Count granules_filled{0};
  Count granules_copied_back{0};
  Count bytes_filled{0};
  Count bytes_copied_back{0};
  Count bytes_bounced{0};
  Count evictions{0};
  Count spurious_faults{0};
  Count throttled{0};
  Count writeback_errors{0};
  /// Of views and regions that have ended; the others count for themselves.
  Count over_protections{0};
  Count dirty_bytes{0};

  static void add(Count& c, std::uint64_t n = 1) noexcept { c.fetch_add(n, std::memory_order_relaxed); }
  static void sub(Count& c, std::uint64_t n) noexcept { c.fetch_sub(n, std::memory_order_relaxed); }
  static std::uint64_t get(const Count& c) noexcept { return c.load(std::memory_order_relaxed); }

  /// Adds these numbers to a snapshot; faults count as the host's or as a device's.
  void add_to(Stats& s, bool is_host) const noexcept {
    (is_host ? s.faults.host_read : s.faults.device_read) += get(read_faults);
    (is_host ? s.faults.host_write : s.faults.device_write) += get(write_faults);
    s.granules_filled += get(granules_filled);
    s.granules_copied_back += get(granules_copied_back);
    s.bytes_filled += get(bytes_filled);
    s.bytes_copied_back += get(bytes_copied_back);
    s.bytes_bounced += get(bytes_bounced);
    s.evictions += get(evictions);
    s.spurious_faults += get(spurious_faults);
    s.throttled += get(throttled);
    s.writeback_errors += get(writeback_errors);
    s.over_protections += get(over_protections);
    s.dirty_bytes += get(dirty_bytes);
  }
};

}  // namespace aprime::engine
