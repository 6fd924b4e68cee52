#include <sys/mman.h>

#include <cstring>

#include "aprime/kernel.hpp"
#include "bench/device.hpp"
#include "bench/figure.hpp"
#include "bench/plain.hpp"

// What costs nothing: accesses for which the rights are there.

namespace aprime::bench {
namespace {

using namespace aprime::literals;

constexpr ByteCount kRange = 64_MiB;
constexpr std::size_t kTile = 64 * 1024;
/// Passes per round, so that the launch is lost in them.
constexpr unsigned kPasses = 4;

/// Adds 1 to every element; a block per tile. Loads and stores, so that both rights are used.
struct IncrementKernel {
  APRIME_DEVICE void operator()(LeasedSpan<std::uint32_t> elements) const {
    const std::size_t tile = std::size_t{blockIdx.x} * (kTile / sizeof(std::uint32_t));
    for (std::size_t i = threadIdx.x; i < kTile / sizeof(std::uint32_t); i += blockDim.x)
      elements[tile + i] += 1;
  }
};
/// The same for a pointer that aprime knows nothing of.
struct PlainIncrementKernel {
  std::uint32_t* data;
  APRIME_DEVICE void operator()() const {
    IncrementKernel{}(LeasedSpan<std::uint32_t>{data, kRange.value / sizeof(std::uint32_t)});
  }
};

/// Two equal things differ by less than what the first does to the caches: each is first in every other
/// round.
class InTurn : public Experiment {
 protected:
  template <class Ours, class Plain>
  Sample in_turn(Ours ours, Plain plain) {
    Sample s;
    ours_first_ = !ours_first_;
    if (ours_first_) s.measured = ours();
    s.floor = plain();
    if (!ours_first_) s.measured = ours();
    return s;
  }

 private:
  bool ours_first_ = false;
};

class ResidentKernel final : public InTurn {
 public:
  ResidentKernel() { static_cast<void>(run(IncrementKernel{}, read_write(mapping_))); }

  Sample round() override {
    return in_turn(
        [this] { return run(IncrementKernel{}, read_write(mapping_)); },
        [this] { return run(PlainIncrementKernel{reinterpret_cast<std::uint32_t*>(memory_.data())}); });
  }

 private:
  template <class Kernel, class... Args>
  double run(Kernel kernel, const Args&... args) {
    const Grid grid{.blocks = {static_cast<unsigned>(kRange.value / kTile)}, .threads = {64}};
    const double start = now();
    for (unsigned pass = 0; pass < kPasses; ++pass) runtime_.launch(grid, kernel, args...).wait();
    return now() - start;
  }

  const PlainFile file_{kRange, true};
  const PlainMemory memory_ = PlainMemory::anonymous(kRange, true);
  Runtime runtime_{quiet(DeviceKind::emulated, 64_KiB, kRange)};
  const Mapping mapping_ = runtime_.map(file_.path(), Access::read_write);
};

/// The CPU reads, through its pointer, a file that was on a device and came home.
class HomePointer final : public InTurn {
 public:
  HomePointer() {
    timed_on_device(runtime_, read(mapping_), [](const std::byte* data) { keep(sum(data, kRange.value)); });
    keep(sum(view_, kRange.value));
  }

  Sample round() override {
    return in_turn([this] { return time_of(view_); }, [this] { return time_of(plain_.data()); });
  }

 private:
  static double time_of(const std::byte* data) {
    const double start = now();
    for (unsigned pass = 0; pass < kPasses; ++pass) keep(sum(data, kRange.value));
    return now() - start;
  }

  const PlainFile file_{kRange, true};
  const PlainMemory plain_ = PlainMemory::of(file_, PROT_READ);
  Runtime runtime_{quiet(DeviceKind::emulated, 64_KiB, kRange)};
  const Mapping mapping_ = runtime_.map(file_.path(), Access::read_write);
  const std::byte* const view_ = mapping_.host<const std::byte>().data();
};

}  // namespace

void add_resident(Figures& figures) {
  const double bytes = static_cast<double>(kRange.value) * kPasses;
  figures.push_back({"resident_kernel", "kernel over resident pages, 64 MiB",
                     "the same kernel over plain memory", Unit::gigabytes_per_second, bytes,
                     Goal::ratio_at_least, 0.98, 41, [] { return std::make_unique<ResidentKernel>(); }});
  figures.push_back({"home_pointer", "CPU pointer over home pages, 64 MiB", "plain mmap",
                     Unit::gigabytes_per_second, bytes, Goal::ratio_at_least, 0.98, 41,
                     [] { return std::make_unique<HomePointer>(); }});
}

}  // namespace aprime::bench
