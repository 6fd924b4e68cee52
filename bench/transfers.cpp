#include <sys/mman.h>

#include <cstring>

#include "bench/device.hpp"
#include "bench/figure.hpp"
#include "bench/plain.hpp"

// Whole ranges on the way to a device and back.

namespace aprime::bench {
namespace {

using namespace aprime::literals;

constexpr ByteCount kRange = 256_MiB;

/// One device thread reads a file that the page cache has and the device has not.
class ColdRead final : public Experiment {
 public:
  explicit ColdRead(Advice advice) : advice_(advice) {}

  Sample round() override {
    Sample s;
    {
      const Mapping mapping = runtime_.map(file_.path(), Access::read);
      mapping.advise(all_of(mapping), advice_);
      s.measured = timed_on_device(runtime_, read(mapping),
                                   [](const std::byte* data) { keep(sum(data, kRange.value)); });
    }
    const PlainMemory to = PlainMemory::anonymous(kRange);
    const double start = now();
    std::memcpy(to.data(), mapped_.data(), kRange.value);
    s.floor = now() - start;
    return s;
  }

 private:
  const Advice advice_;
  const PlainFile file_{kRange, true};
  const PlainMemory mapped_ = PlainMemory::of(file_, PROT_READ);
  Runtime runtime_{quiet(DeviceKind::emulated, 64_KiB, kRange)};
};

/// A lease of the whole range on a software-paged device that holds nothing of it.
class LeaseFill final : public Experiment {
 public:
  Sample round() override {
    Sample s;
    {
      const Mapping mapping = runtime_.map(file_.path(), Access::read);
      const double start = now();
      runtime_
          .launch_task(
              {.name = "fill"}, [](LeasedBytes<Right::read>) {}, read(mapping))
          .wait();
      s.measured = now() - start;
    }
    const double start = now();
    read_all(file_.fd(), 0, {memory_.data(), memory_.size()});
    s.floor = now() - start;
    return s;
  }

 private:
  const PlainFile file_{kRange, true};
  const PlainMemory memory_ = PlainMemory::anonymous(kRange, true);
  Runtime runtime_{quiet(DeviceKind::emulated_strict, 64_KiB, kRange)};
};

/// The whole range, stored to on a software-paged device, on its way home.
class CopyBack final : public Experiment {
 public:
  Sample round() override {
    Sample s;
    {
      const Mapping mapping = runtime_.map(file_.path(), Access::read_write);
      const std::byte value{++round_};
      runtime_
          .launch_task(
              {.name = "store"},
              [value](LeasedBytes<Right::write> b) {
                std::memset(b.data(), std::to_integer<int>(value), b.size());
              },
              write(mapping))
          .wait();
      const double start = now();
      mapping.prefetch_home(all_of(mapping));
      s.measured = now() - start;
    }
    file_.sync();
    std::memset(memory_.data(), ++round_, memory_.size());
    const double start = now();
    write_all(file_.fd(), 0, {memory_.data(), memory_.size()});
    s.floor = now() - start;
    file_.sync();
    return s;
  }

 private:
  const PlainFile file_{kRange, true};
  const PlainMemory memory_ = PlainMemory::anonymous(kRange, true);
  Runtime runtime_{quiet(DeviceKind::emulated_strict, 64_KiB, kRange)};
  std::uint8_t round_ = 0;
};

}  // namespace

void add_transfers(Figures& figures) {
  const auto bytes = static_cast<double>(kRange.value);
  const auto add = [&](const char* key, const char* text, const char* floor, double must, auto make) {
    figures.push_back(
        {key, text, floor, Unit::gigabytes_per_second, bytes, Goal::ratio_at_least, must, 15, make});
  };
  add("cold_read_batched", "cold device read by faults, 256 MiB, granule 64 KiB, batching",
      "memcpy to fresh memory", 1.3, [] { return std::make_unique<ColdRead>(Advice::normal); });
  add("cold_read_single", "the same without batching", "memcpy to fresh memory", 0.8,
      [] { return std::make_unique<ColdRead>(Advice::random); });
  add("lease_fill", "lease fill, 256 MiB (strict)", "pread", 0.9,
      [] { return std::make_unique<LeaseFill>(); });
  add("copy_back", "copy back, 256 MiB dirty (strict)", "pwrite", 0.9,
      [] { return std::make_unique<CopyBack>(); });
}

}  // namespace aprime::bench
