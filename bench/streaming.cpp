#include "bench/device.hpp"
#include "bench/figure.hpp"
#include "bench/plain.hpp"
#include "kernels/histogram.hpp"

// A file of several times the device memory, on its way through it.

namespace aprime::bench {
namespace {

using namespace aprime::literals;

constexpr ByteCount kFile = 256_MiB;
constexpr ByteCount kSmall{kFile.value / 8};
/// The file, the workload's scratch, and as much again, because a workload takes half of the memory at once.
constexpr ByteCount kLarge{2 * kFile.value + (8_MiB).value};

class Unwatched final : public kernels::Progress {
 public:
  void begin(const std::string&, ByteCount) override {}
  void advance(ByteCount) override {}
};

/// The workload over a file that the page cache has and the device has not, fill included.
double time_histogram(Runtime& runtime, ByteCount device_memory, const PlainFile& file) {
  const Mapping mapping = runtime.map(file.path(), Access::read);
  Unwatched progress;
  kernels::Session session(runtime, mapping.granule(), device_memory, progress);
  const double start = now();
  static_cast<void>(kernels::histogram.run(session, {}, {&mapping, 1}));
  return now() - start;
}

/// Pieces of half the memory, the next one filled while one is counted; beside one piece, filled and counted.
class Streaming final : public Experiment {
 public:
  Sample round() override {
    return {.measured = time_histogram(small_, kSmall, file_),
            .floor = time_histogram(large_, kLarge, file_)};
  }

 private:
  const PlainFile file_{kFile, true};
  Runtime small_{quiet(DeviceKind::emulated_strict, 64_KiB, kSmall)};
  Runtime large_{quiet(DeviceKind::emulated_strict, 64_KiB, kLarge)};
};

}  // namespace

void add_streaming(Figures& figures) {
  figures.push_back({"streaming", "histogram of 256 MiB with 32 MiB of device memory (strict)",
                     "the same with all of it on the device, fill included", Unit::gigabytes_per_second,
                     static_cast<double>(kFile.value), Goal::ratio_at_least, 0.85, 15,
                     [] { return std::make_unique<Streaming>(); }});
}

}  // namespace aprime::bench
