#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "aprime/aprime.hpp"
#include "tests/contract/kernels.hpp"

// The contract of the public API, run on every kind of device. Nothing here looks behind include/aprime.

namespace aprime::contract {

using Bytes = std::vector<std::byte>;
using Place = GranuleReport::Place;
using namespace aprime::literals;

/// A kind of device to run the suite on.
struct Personality {
  const char* name;
  DeviceKind kind;
  bool without_userfaultfd;
  /// Stops a kernel that touches what it may not. A GPU does not: it may end the process's use of it, or not
  /// notice.
  bool watches_kernels = true;
  DeviceMemoryKind memory_kind = DeviceMemoryKind::device;

  DeviceOptions device(ByteCount memory, unsigned workers) const {
    return {.kind = kind,
            .memory = memory,
            .workers = workers,
            .without_userfaultfd = without_userfaultfd,
            .memory_kind = memory_kind};
  }
};
/// Each program that runs the suite brings its own.
std::vector<Personality> personalities();
/// Those whose kernels need leases.
std::vector<Personality> software_paged_personalities();
/// Those that watch their kernels.
std::vector<Personality> watching_personalities();
inline void PrintTo(const Personality& p, std::ostream* out) { *out << p.name; }

inline constexpr std::uint64_t kPage = 4096;
inline constexpr std::uint64_t kGranule = 16 * 1024;

struct WorldOptions {
  unsigned devices = 1;
  ByteCount granule{kGranule};
  ByteCount device_memory = 4_MiB;
  HostAccess host_access = HostAccess::migrate;
  /// Zero: no background flusher, so that nothing moves but what the test moves.
  std::chrono::milliseconds dirty_age_max{0};
  ByteCount dirty_bytes_max = 128_MiB;
  unsigned workers = 2;
};

/// A runtime with devices of one personality, a directory of files that goes at the end, and the means to
/// look at bytes from a device.
class World {
 public:
  explicit World(const Personality& personality, const WorldOptions& options = {});
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  Runtime& runtime() { return *runtime_; }
  /// Ends the runtime, as a program does that is about to exit.
  void end_runtime();
  bool hardware_paged() const { return hardware_paged_; }
  /// `n` on a device that takes faults, 0 on one that does not.
  std::uint64_t faults(std::uint64_t n) const { return hardware_paged_ ? n : 0; }

  /// The path of a new file with these contents.
  std::string file(const Bytes& contents);
  std::string sparse_file(std::uint64_t size);
  /// A path in the world's directory where there is nothing yet.
  std::string path_for(const std::string& name);

  Mapping map(const std::string& path, Access access = Access::read_write) {
    return runtime_->map(path, access);
  }
  Mapping map_new(const Bytes& contents) { return map(file(contents)); }

  /// What a kernel sees in the range. Moves nothing of the mapping home.
  Bytes seen_by_device(const Mapping& mapping, ByteRange range, unsigned device = 0);
  Bytes seen_by_device(const Mapping& mapping, unsigned device = 0);
  /// Lets a kernel load one byte in each granule of the range, in order.
  void touch_on_device(const Mapping& mapping, ByteRange range, unsigned device = 0);
  /// Lets a kernel store to the range.
  void store_on_device(const Mapping& mapping, ByteRange range, Byte value, unsigned device = 0);
  void increment_on_device(const Mapping& mapping, ByteRange range, unsigned device = 0);

 private:
  std::string directory_;
  unsigned files_ = 0;
  bool hardware_paged_ = false;
  std::unique_ptr<Runtime> runtime_;
  /// Where kernels leave what they saw; one file for each device.
  std::vector<Mapping> results_;
};

/// What the numbers were before, to be compared with what they are after.
class Delta {
 public:
  explicit Delta(World& world) : world_(&world), before_(world.runtime().stats()) {}
  Stats get() const;

 private:
  World* world_;
  Stats before_;
};

class Contract : public testing::TestWithParam<Personality> {};

/// `of` granules from `first` on.
constexpr ByteRange granules(std::uint64_t first, std::uint64_t count = 1, std::uint64_t size = kGranule) {
  return {ByteOffset{first * size}, ByteCount{count * size}};
}
constexpr ByteRange range(std::uint64_t first, std::uint64_t size) {
  return {ByteOffset{first}, ByteCount{size}};
}
inline ByteRange all_of(const Mapping& m) { return {ByteOffset{0}, m.size_bytes()}; }
GranuleReport report(const Mapping& m, std::uint64_t granule);

/// Bytes that differ from place to place and are never zero.
Bytes pattern(std::size_t size, unsigned seed = 1);
Bytes constant(std::size_t size, unsigned value);
/// `bytes` with [at, at + size) replaced by `value`.
Bytes with(Bytes bytes, std::size_t at, std::size_t size, unsigned value);
Bytes part(const Bytes& bytes, std::size_t at, std::size_t size);
Bytes incremented(Bytes bytes);

/// Mapping::read into new memory.
Bytes read_bytes(const Mapping& m, ByteRange r, std::optional<HostAccess> how = {});
inline Bytes read_bytes(const Mapping& m) { return read_bytes(m, all_of(m)); }
void write_bytes(const Mapping& m, std::uint64_t at, const Bytes& bytes, std::optional<HostAccess> how = {});
/// What the CPU sees through the mapping's pointer.
Bytes seen_by_pointer(const Mapping& m, ByteRange r);

/// One load that the compiler cannot leave out.
inline Byte load_byte(const std::byte* p) { return *reinterpret_cast<const volatile Byte*>(p); }

// The plain path: a descriptor of its own, as another process has.
Bytes plain_read(const std::string& path, std::uint64_t at, std::size_t size);
inline Bytes plain_read(const std::string& path, ByteRange r) {
  return plain_read(path, r.first.value, static_cast<std::size_t>(r.size.value));
}
/// The whole file.
Bytes plain_read(const std::string& path);
void plain_write(const std::string& path, std::uint64_t at, const Bytes& bytes);
std::uint64_t plain_size(const std::string& path);
void plain_truncate(const std::string& path, std::uint64_t size);

/// The error that `action` throws; a test failure if it throws none, or another.
Error error_of(const std::function<void()>& action);
inline Errc code_of(const std::function<void()>& action) { return error_of(action).code(); }

/// Runs `child` in a fork and returns its wait status. A child that does not end is killed after a while, and
/// counts as killed; one that throws ends with status 99.
int in_child(const std::function<void()>& child);

/// Waits, for a minute at most, until `condition` holds.
bool eventually(const std::function<bool()>& condition);

}  // namespace aprime::contract

/// For what only a device does whose kernels need leases.
#define APRIME_LEASING_SUITE(suite)                                                             \
  INSTANTIATE_TEST_SUITE_P(device, suite,                                                       \
                           testing::ValuesIn(aprime::contract::software_paged_personalities()), \
                           [](const auto& instance) { return std::string(instance.param.name); })
/// For what only a device does that watches its kernels.
#define APRIME_WATCHING_SUITE(suite)                                                                     \
  GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(suite);                                                  \
  INSTANTIATE_TEST_SUITE_P(device, suite, testing::ValuesIn(aprime::contract::watching_personalities()), \
                           [](const auto& instance) { return std::string(instance.param.name); })
#define APRIME_CONTRACT_SUITE(suite)                                                            \
  INSTANTIATE_TEST_SUITE_P(device, suite, testing::ValuesIn(aprime::contract::personalities()), \
                           [](const auto& instance) { return std::string(instance.param.name); })
