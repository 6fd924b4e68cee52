#pragma once

#include <cstddef>
#include <span>

#include "aprime/access.hpp"
#include "aprime/error.hpp"
#include "host/engine/coherent_file.hpp"

namespace aprime::engine {

/// How a caller's buffer is moved to or from a file.
struct Transfer {
  ByteOffset at;
  HostAccess how = HostAccess::adaptive;
  /// Past the page cache: dirty granules of devices go to disk first. `at`, the buffer and its size are
  /// multiples of the file's direct alignment, and `how` is without meaning.
  bool is_direct = false;
  /// AgentId::mount() for reads by programs on the mount, whose kernel sends what was stored to its pages
  /// first: they need not be recalled. Not for writes: a page may be asked for again before the bytes are
  /// home.
  AgentId requester = AgentId::cpu();
  /// What is bounced changes the time of the file now, by one more system call, and not when it comes home
  /// only.
  bool sets_time = false;
};

/// Reads the newest bytes, wherever they are; atomic per granule. Bytes past the end of the file are zeros.
/// `into` must not be trapped memory.
Status read_file(CoherentFile& file, const Transfer& transfer, std::span<std::byte> into) noexcept;
/// Writes what lies below the end of the file; atomic per granule. `from` must not be trapped memory.
Status write_file(CoherentFile& file, const Transfer& transfer, std::span<const std::byte> from) noexcept;

}  // namespace aprime::engine
