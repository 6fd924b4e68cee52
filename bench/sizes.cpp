#include <malloc.h>

#include <cstdio>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>

#include "bench/device.hpp"
#include "bench/figure.hpp"
#include "bench/plain.hpp"

// What aprime's tables cost.

namespace aprime::bench {
namespace {

using namespace aprime::literals;

/// Anonymous memory of this process that is present, in bytes, without areas that touch `left_out`: exact,
/// because the kernel walks the page tables for it.
double present_bytes(std::span<const std::byte> left_out) {
  std::ifstream areas("/proc/self/smaps");
  const auto begin = reinterpret_cast<std::uintptr_t>(left_out.data());
  const auto end = begin + left_out.size();
  double bytes = 0;
  bool counts = true;
  for (std::string line; std::getline(areas, line);) {
    unsigned long first = 0;
    unsigned long last = 0;
    unsigned long kib = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &first, &last) == 2)
      counts = last <= begin || first >= end;
    else if (counts && std::sscanf(line.c_str(), "Anonymous: %lu kB", &kib) == 1)
      bytes += static_cast<double>(kib) * 1024;
  }
  return bytes;
}

double resident_bytes() {
  std::ifstream rollup("/proc/self/smaps_rollup");
  for (std::string line; std::getline(rollup, line);) {
    unsigned long kib = 0;
    if (std::sscanf(line.c_str(), "Rss: %lu kB", &kib) == 1) return static_cast<double>(kib) * 1024;
  }
  throw std::runtime_error("/proc/self/smaps_rollup does not say how much memory is resident");
}

/// The slope between two dense files of different length, each wholly on a device of just its size, with a
/// host pointer: threads, stacks and whatever else does not depend on the length drops out.
class TablesPerGranule final : public Experiment {
 public:
  Sample round() override {
    return {(bytes_for(large_) - bytes_for(small_)) / static_cast<double>(kLarge - kSmall), 0};
  }

 private:
  static constexpr std::uint64_t kSmall = std::uint64_t{1} << 12;
  static constexpr std::uint64_t kLarge = std::uint64_t{1} << 16;

  static double bytes_for(const PlainFile& file) {
    // What the allocator kept of the last round would count as there before.
    ::malloc_trim(0);
    const double before = present_bytes({});
    Runtime runtime(quiet(DeviceKind::emulated, 4_KiB, file.size()));
    const Mapping mapping = runtime.map(file.path(), Access::read_write);
    static_cast<void>(mapping.host<std::byte>());
    const std::byte* window = nullptr;
    const std::byte** const out = &window;
    const std::size_t size = file.size().value;
    timed_on_device(runtime, read(mapping), [out, size](const std::byte* data) {
      *out = data;
      for (std::size_t at = 0; at < size; at += kPage) touch(data + at);
    });
    return present_bytes({window, size}) - before;
  }

  const PlainFile small_{ByteCount{kSmall * kPage}, true};
  const PlainFile large_{ByteCount{kLarge * kPage}, true};
};

/// Mapping a huge hole, CPU pointer included.
class HugeMapping final : public Experiment {
 public:
  explicit HugeMapping(bool size) : size_(size) {}

  Sample round() override {
    const double before = resident_bytes();
    const double start = now();
    const Mapping mapping = runtime_.map(file_.path(), Access::read_write);
    static_cast<void>(mapping.host<std::byte>());
    const double seconds = now() - start;
    return {size_ ? resident_bytes() - before : seconds, 0};
  }

 private:
  const bool size_;
  const PlainFile file_{1024_GiB, false};
  Runtime runtime_{quiet(DeviceKind::emulated, 64_KiB, 16_MiB)};
};

}  // namespace

void add_sizes(Figures& figures) {
  figures.push_back({"tables_per_granule", "aprime's own tables, per 4 KiB granule given to a device (dense)",
                     "-", Unit::bytes, 1, Goal::figure_at_most, 32, 5,
                     [] { return std::make_unique<TablesPerGranule>(); }});
  figures.push_back({"huge_mapping_time", "mapping 1 TiB sparse, with a CPU pointer: time", "-",
                     Unit::milliseconds, 1, Goal::figure_at_most, 10e-3, 31,
                     [] { return std::make_unique<HugeMapping>(false); }});
  figures.push_back({"huge_mapping_size", "the same: RSS growth", "-", Unit::kibibytes, 1,
                     Goal::figure_at_most, 1 << 20, 1, [] { return std::make_unique<HugeMapping>(true); }});
}

}  // namespace aprime::bench
