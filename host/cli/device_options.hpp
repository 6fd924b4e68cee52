#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "aprime/runtime.hpp"
#include "aprime/units.hpp"

namespace aprime::cli {

/// What the commands that use a device have in common.
struct DeviceChoice {
  DeviceKind kind = DeviceKind::automatic;
  ByteCount granule{std::uint64_t{64} << 10};
  ByteCount memory{std::uint64_t{256} << 20};
  DeviceMemoryKind memory_kind = DeviceMemoryKind::device;
  HostAccess host_access = HostAccess::adaptive;
  bool json = false;
  /// Names of those of the options that were given, not left to their defaults.
  std::set<std::string> given{};

  RuntimeOptions runtime_options() const;
};

/// \throws Error in which the command's options stand for those of the library
Runtime make_runtime(const RuntimeOptions& options);

/// Adds --device, --granule, --device-memory, --device-memory-kind and --host-access.
void add_device_options(CLI::App& command, DeviceChoice& choice);
/// Fills in `given` from the parsed command line.
void note_given_options(const CLI::App& command, DeviceChoice& choice);

inline constexpr const char* kDeviceOption = "--device";
inline constexpr const char* kHostAccessOption = "--host-access";
/// Name and value, as it may be given, of each option that holds for a runtime as a whole.
std::vector<std::pair<std::string, std::string>> mount_options(const DeviceChoice& choice);
std::string name_of(HostAccess access);
std::optional<HostAccess> host_access_of(const std::string& name);

/// What one option alone cannot tell. \throws CLI::ValidationError
void check_device_options(const DeviceChoice& choice);

}  // namespace aprime::cli
