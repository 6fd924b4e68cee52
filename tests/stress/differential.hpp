#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "aprime/aprime.hpp"
#include "tests/contract/contract.hpp"

namespace aprime::stress {

/// What one operation does. Numbers are drawn once and made to fit when the operation runs, so that any part
/// of a list of operations is a list of operations, too.
enum class Verb : std::uint8_t {
  map,
  unmap,
  host_load,
  host_store,
  read,
  write,
  read_direct,
  write_direct,
  kernel_load,
  kernel_store,
  kernel_overwrite,
  task_store,
  sync,
  prefetch,
  prefetch_home,
  resize,
  discard,
  advise,
  lease_load,
  out_of_range,
  /// Changes a byte past aprime without telling the model: to show that the test can fail.
  corrupt,
};
inline constexpr std::size_t kVerbCount = 20;  // without `corrupt`

struct Operation {
  Verb verb;
  std::uint8_t slot;
  std::uint8_t variant;
  std::uint8_t salt;
  std::uint64_t at;
  std::uint64_t size;
};
std::string describe(const Operation& operation);

/// Where a list of operations runs: one file, one runtime, some overlapping mappings, a plain array as the
/// model.
struct Setting {
  std::vector<DeviceOptions> devices;
  ByteCount granule;
  std::uint64_t file_bytes;
  HostAccess host_access;
  bool flusher;
};

/// Runs the operations one after the other on one thread. Returns how the file came to differ from the model,
/// or nothing.
std::string run_operations(const Setting& setting, const std::vector<Operation>& operations);

std::vector<Operation> make_operations(std::uint64_t seed, std::size_t count);
/// With one device or several, of any of these.
Setting make_setting(std::uint64_t seed, std::span<const contract::Personality> personalities);

/// The smallest part of the list that still fails, as far as leaving out pieces of it finds one (ddmin:
/// Zeller, Hildebrandt 2002).
std::vector<Operation> shrink(const Setting& setting, std::vector<Operation> operations);

}  // namespace aprime::stress
