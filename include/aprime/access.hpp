#pragma once

#include <cstdint>

namespace aprime {

/// What a mapping may do with its file. A store through a read mapping is a defect of the caller: the CPU
/// gets the SIGSEGV that a plain PROT_READ mapping gives, a device kernel is stopped with a
/// DeviceFaultStatus.
enum class Access : std::uint8_t { read, read_write };

/// How `Mapping::read` and `Mapping::write` treat a granule whose newest bytes are on a device (rule 7).
enum class HostAccess : std::uint8_t {
  /// Copy the granule home and give up the device's right to it as far as the access needs (rules 5 and 6).
  migrate,
  /// Serve the bytes from the device's copy through a bounce buffer; the device stays the owner. Its write
  /// right is taken first, so that a read is atomic per granule; its next store costs one upgrade fault and
  /// no copy.
  bounce,
  /// Bounce until the bytes bounced from a granule since the device last took it add up to one granule, then
  /// migrate. This is the ski-rental rule (Karlin, Manasse, Rudolph, Sleator 1988): the cost is never more
  /// than twice that of the better fixed choice.
  adaptive,
};

/// What a lease or a fault asks for.
enum class Right : std::uint8_t {
  read,
  /// Reads and stores; the old bytes are there.
  read_write,
  /// Every byte of the range will be stored before it is read: granules that lie whole within the range are
  /// not filled, and read as zeros until they are stored to.
  write,
};

constexpr bool includes_write(Right r) noexcept { return r != Right::read; }

/// Expected use, as with madvise(2). Advice changes speed and never results.
enum class Advice : std::uint8_t { normal, sequential, random, will_need, dont_need };

}  // namespace aprime
