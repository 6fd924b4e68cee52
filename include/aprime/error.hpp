#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "aprime/units.hpp"

namespace aprime {

/// Why an operation failed, independent of the place where it failed.
enum class Errc : std::uint8_t {
  ok,
  /// An argument can never be right (granule not a power of two, grid without threads, closed mapping, ...).
  invalid_argument,
  /// The file is missing, is no regular file, may not be opened, or its file system cannot map it.
  cannot_open,
  /// The request contradicts an existing mapping of the same file.
  conflict,
  /// A store where only reading is allowed.
  access_denied,
  /// The bytes lie beyond the end of the file, for instance because another process truncated it.
  out_of_range,
  /// Reading or writing the file failed (EIO and whatever else the file system reports).
  io,
  /// The file system is full (ENOSPC, EDQUOT), or a file larger than it or this process allows (EFBIG;
  /// `ulimit -f`). Dirty bytes are kept on the device; `sync` may be called again.
  no_space,
  /// The device memory budget cannot hold what the leases of one launch need at once.
  device_memory,
  /// The process or the machine is out of memory, areas (vm.max_map_count) or descriptors.
  resources,
  /// A kernel went wrong in a way that is not a fault on a mapping (exception, divergent barrier, wild
  /// pointer, division by zero, stack overflow).
  kernel_failed,
  /// A call to the device's driver failed: the message names it. Bytes that only the device had are lost if
  /// this goes on.
  device_failed,
};

/// Outcome of an internal operation on a fault path: no allocation, no exception. `offset` is meaningful
/// where the failure belongs to a place in a file.
struct [[nodiscard]] Status {
  Errc code = Errc::ok;
  int system_error = 0;
  ByteOffset offset{};
  /// With device_failed, which call failed and why; with resources, what there is no more of. In words, in
  /// static storage; may be null.
  const char* reason = nullptr;

  constexpr bool is_ok() const noexcept { return code == Errc::ok; }
};

/// The exception of the public API. `what()` names the thing, the reason and what to do about it.
class Error : public std::runtime_error {
 public:
  Error(Errc code, std::string message, std::string path = {}, int system_error = 0, ByteOffset offset = {});

  Errc code() const noexcept { return code_; }
  /// errno of the failed system call, 0 where there was none.
  int system_error() const noexcept { return system_error_; }
  /// The file concerned, empty where there is none.
  const std::string& path() const noexcept { return path_; }
  /// Where in the file, meaningful for out_of_range, access_denied, io and no_space.
  ByteOffset offset() const noexcept { return offset_; }

 private:
  Errc code_;
  int system_error_;
  std::string path_;
  ByteOffset offset_;
};

}  // namespace aprime
