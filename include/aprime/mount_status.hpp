#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "aprime/runtime.hpp"
#include "aprime/stats.hpp"
#include "aprime/units.hpp"

namespace aprime {

/// How many granules of a file are in each state (see GranuleReport::Place).
struct GranuleCounts {
  GranuleCount host;
  GranuleCount home;
  GranuleCount shared;
  GranuleCount device;
  GranuleCount device_dirty;
  GranuleCount mount;

  /// Those whose newest bytes are on a device and nowhere else.
  GranuleCount dirty() const noexcept { return GranuleCount{device.value + device_dirty.value}; }
};

/// A file that a runtime keeps coherent with its devices. A snapshot: granules change while they are counted.
struct FileStatus {
  /// Where it is now: below the mount, or absolute where no mount is meant. Any bytes, as file names are.
  /// Empty if it has no name any more.
  std::string path;
  ByteCount size;
  ByteCount granule;
  GranuleCounts granules;
  /// Bytes that exist only on a device now.
  ByteCount dirty_bytes;
  /// Writebacks and syncs of the file that failed, and how the last one did, in words.
  std::uint64_t failed_writebacks = 0;
  std::string last_error;
};

/// What a mount and the runtime behind it are doing.
struct MountStatus {
  std::string source;
  std::string mountpoint;
  /// The process that serves it, and the version of the library there.
  std::int64_t process = 0;
  std::string version;
  std::vector<DeviceInfo> devices;
  /// Those of the source that the runtime has mapped, in the order of their paths. All others are those of
  /// the source, byte by byte.
  std::vector<FileStatus> files;
  /// Of the runtime, for all its files.
  Stats stats;
};

/// Asks the process that serves the mount on which `path` lies, which must belong to this user.
/// \throws Error(cannot_open) that says what is wrong: no mount of aprime, a stale one, another user's, or
/// one whose process does not answer or speaks another version
MountStatus mount_status(const std::string& path);

}  // namespace aprime
