#include "bench/software_paged.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

#include "bench/device.hpp"
#include "bench/plain.hpp"
#include "bench/reference.hpp"

// Faults inside a running kernel, and what its accesses cost where there is none.

namespace aprime::bench {
namespace {

using namespace aprime::literals;

constexpr ByteCount kGranule = 64_KiB;
constexpr std::size_t kQuads = kGranule.value / sizeof(Quad);
/// Of what is streamed by pointer.
constexpr ByteCount kPinnedGranule = 256_KiB;

/// A grid over memory of the process.
class EmulatedReference final : public Reference {
 public:
  EmulatedReference(ByteCount size, Runtime& runtime)
      : runtime_(runtime),
        host_(PlainMemory::anonymous(size, true)),
        device_(PlainMemory::anonymous(size, true)) {}

  double copy_in() override { return copy(device_, host_); }
  double copy_out() override { return copy(host_, device_); }
  double run(const Grid& grid, const RawStream& kernel) override { return time<Quad>(grid, kernel); }
  double run(const Grid& grid, const RawLoadEach<std::uint32_t>& kernel) override {
    return time<std::uint32_t>(grid, kernel);
  }
  double run(const Grid& grid, const RawLoadEach<Quad>& kernel) override { return time<Quad>(grid, kernel); }

 private:
  static double copy(const PlainMemory& to, const PlainMemory& from) {
    const double start = now();
    std::memcpy(to.data(), from.data(), to.size());
    return now() - start;
  }
  template <class T, class Kernel>
  double time(const Grid& grid, const Kernel& kernel) {
    const Sums sums{sums_, std::size(sums_)};
    const double start = now();
    runtime_.launch(grid, kernel, reinterpret_cast<const T*>(device_.data()), sums).wait();
    return now() - start;
  }

  Runtime& runtime_;
  const PlainMemory host_;
  const PlainMemory device_;
  unsigned long long sums_[256] = {};
};

/// A dense file, a device that holds all of it, and a reference of the same size.
class Paged : public Experiment {
 protected:
  Paged(const PagedDevice& device, ByteCount granule, unsigned blocks_per_processor)
      : device_(device), granule_(granule), blocks_per_processor_(blocks_per_processor) {}

  Grid grid() const {
    return {.blocks = {blocks_per_processor_ * runtime_.devices().front().workers},
            .threads = {device_.threads}};
  }
  GranuleOrder order(bool scattered) const {
    return {static_cast<unsigned>(std::countr_zero(device_.range.value / granule_.value)), scattered};
  }
  Mapping map() {
    Mapping mapping = runtime_.map(file_.path(), Access::read);
    mapping.advise(all_of(mapping), Advice::random);
    return mapping;
  }
  /// Seconds of a launch that adds up the whole file `passes` times. \throws std::runtime_error if it gets
  /// another sum than the CPU
  template <class Kernel>
  double run(const Kernel& kernel, const Mapping& mapping, unsigned passes) {
    const double start = now();
    runtime_.launch(grid(), kernel, demand_read(mapping), read_write(sums_)).wait();
    const double seconds = now() - start;
    unsigned long long total = 0;
    std::vector<unsigned long long> sums(sums_.size<unsigned long long>());
    sums_.read(ByteOffset{0}, std::as_writable_bytes(std::span(sums)));
    for (const unsigned long long sum : sums) total += sum;
    const std::uint64_t got = std::exchange(before_, total);
    if (total - got != passes * expected_)
      throw std::runtime_error(
          fmt::format("the kernel's sum is {}; the CPU gets {}", total - got, passes * expected_));
    return seconds;
  }

  std::size_t quads() const { return static_cast<std::size_t>(granule_.value / sizeof(Quad)); }

  const PagedDevice device_;
  const ByteCount granule_;

 private:
  std::uint64_t words_of_file() const {
    const PlainMemory bytes = PlainMemory::of(file_, PROT_READ);
    const auto* const words = reinterpret_cast<const std::uint32_t*>(bytes.data());
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < bytes.size() / sizeof *words; ++i) sum += words[i];
    return sum;
  }

  const PlainFile file_{device_.range, true};
  const PlainFile sums_file_{ByteCount{256 * sizeof(unsigned long long)}, true};

 protected:
  Runtime runtime_{quiet(device_.kind, granule_, device_.range + 32_MiB)};
  const std::unique_ptr<Reference> reference_ = device_.make_reference(device_.range, runtime_);

 private:
  const unsigned blocks_per_processor_;
  const Mapping sums_ = runtime_.map(sums_file_.path(), Access::read_write);
  const std::uint64_t expected_ = words_of_file();
  unsigned long long before_ = initial_sum();

  unsigned long long initial_sum() const {
    std::vector<unsigned long long> sums(sums_.size<unsigned long long>());
    sums_.read(ByteOffset{0}, std::as_writable_bytes(std::span(sums)));
    unsigned long long total = 0;
    for (const unsigned long long sum : sums) total += sum;
    return total;
  }
};

/// Over granules that are all there.
class Resident final : public Paged {
 public:
  enum class Access { pinned, load_words, load_quads };

  Resident(const PagedDevice& device, Access access)
      : Paged(device, access == Access::pinned ? kPinnedGranule : kGranule,
              access == Access::pinned ? device.blocks_per_processor : device.loading_blocks_per_processor),
        access_(access) {
    mapping_.prefetch(all_of(mapping_), 0, Right::read);
  }

  Sample round() override {
    const unsigned passes = device_.passes;
    const std::uint64_t bytes = device_.range.value;
    switch (access_) {
      case Access::pinned:
        return {run(PinnedStream{order(false), quads(), passes}, mapping_, passes),
                reference_->run(grid(), RawStream{order(false), quads(), passes})};
      case Access::load_words:
        return {run(LoadEach<std::uint32_t>{passes}, mapping_, passes),
                reference_->run(grid(), RawLoadEach<std::uint32_t>{passes, bytes / 4})};
      case Access::load_quads: break;
    }
    return {run(LoadEach<Quad>{passes}, mapping_, passes),
            reference_->run(grid(), RawLoadEach<Quad>{passes, bytes / sizeof(Quad)})};
  }

 private:
  const Access access_;
  const Mapping mapping_ = map();
};

/// Over granules none of which is there.
class DemandFaults final : public Paged {
 public:
  DemandFaults(const PagedDevice& device, bool scattered)
      : Paged(device, kGranule, device.blocks_per_processor), scattered_(scattered) {}

  Sample round() override {
    Sample s;
    {
      const Mapping mapping = map();
      if (!scattered_) mapping.advise(all_of(mapping), Advice::sequential);
      s.measured = run(PinnedStream{order(scattered_), quads(), 1}, mapping, 1);
    }
    s.floor = reference_->copy_in();
    return s;
  }

 private:
  const bool scattered_;
};

/// One fault after the other, as the thread that waits for it sees it: the median of a round.
class FaultLatency final : public Experiment {
 public:
  explicit FaultLatency(const PagedDevice& device) : device_(device) {}

  Sample round() override {
    const Mapping mapping = runtime_.map(file_.path(), Access::read);
    mapping.advise(all_of(mapping), Advice::random);
    runtime_.launch({{1}, {1}}, TimeFaults{{kLog2Faults, true}, kQuads}, demand_read(mapping), write(times_))
        .wait();
    std::vector<std::uint64_t> nanoseconds(times_.size<std::uint64_t>());
    times_.read(ByteOffset{0}, std::as_writable_bytes(std::span(nanoseconds)));
    const auto middle = nanoseconds.begin() + static_cast<std::ptrdiff_t>(nanoseconds.size() / 2);
    std::nth_element(nanoseconds.begin(), middle, nanoseconds.end());
    return {static_cast<double>(*middle) * 1e-9, 0};
  }

 private:
  static constexpr unsigned kLog2Faults = 9;
  static constexpr std::uint64_t kFaults = std::uint64_t{1} << kLog2Faults;

  const PagedDevice device_;
  const PlainFile file_{ByteCount{kFaults * kGranule.value}, true};
  const PlainFile times_file_{ByteCount{kFaults * sizeof(std::uint64_t)}, true};
  Runtime runtime_{quiet(device_.kind, kGranule, ByteCount{2 * kFaults * kGranule.value})};
  const Mapping times_ = runtime_.map(times_file_.path(), aprime::Access::read_write);
};

}  // namespace

std::unique_ptr<Reference> emulated_reference(ByteCount size, Runtime& runtime) {
  return std::make_unique<EmulatedReference>(size, runtime);
}

void add_software_paged(Figures& figures, const PagedDevice& device) {
  const auto add = [&](const char* key, const std::string& text, const char* floor, unsigned passes,
                       double must, auto make) {
    figures.push_back({device.key + key, text + device.suffix, floor, Unit::gigabytes_per_second,
                       static_cast<double>(device.range.value) * passes, Goal::ratio_at_least,
                       device.is_reported_only ? 0 : must, device.rounds,
                       [device, make]() -> std::unique_ptr<Experiment> {
                         device.require();
                         return make(device);
                       }});
  };
  const auto resident = [](Resident::Access access) {
    return [access](const PagedDevice& d) { return std::make_unique<Resident>(d, access); };
  };
  const auto faults = [](bool scattered) {
    return [scattered](const PagedDevice& d) { return std::make_unique<DemandFaults>(d, scattered); };
  };
  add("pin_span", "pin_span streaming over resident frames, 256 KiB granules",
      "the same kernel by raw pointer", device.passes, 0.9, resident(Resident::Access::pinned));
  add("load", "load() of every 4-byte element", "the same kernel by raw pointer", device.passes, 0.6,
      resident(Resident::Access::load_words));
  add("load_16", "load() of every 16-byte element", "the same kernel by raw pointer", device.passes, 0.6,
      resident(Resident::Access::load_quads));
  add("demand_sequential", "demand faults, 64 KiB granules, sequential", device.copy_text, 1, 0.5,
      faults(false));
  add("demand_random", "demand faults, 64 KiB granules, random", device.copy_text, 1, 0.25, faults(true));
  figures.push_back({device.key + "fault_latency",
                     "one fault at a time, 64 KiB granule, median" + device.suffix, "-", Unit::microseconds,
                     1, Goal::figure_at_most, device.is_reported_only ? 0 : 30e-6, device.rounds,
                     [device]() -> std::unique_ptr<Experiment> {
                       device.require();
                       return std::make_unique<FaultLatency>(device);
                     }});
}

void add_strict(Figures& figures) {
  add_software_paged(
      figures, {.kind = DeviceKind::emulated_strict,
                .key = "strict_",
                .suffix = " (strict)",
                .copy_text = "memcpy of the same bytes",
                .range = 16_MiB,
                .passes = 1,
                .blocks_per_processor = 1,
                .loading_blocks_per_processor = 1,
                .threads = 64,
                .rounds = 5,
                .is_reported_only = true,
                .require = [] {},
                .make_reference = [](ByteCount size, Runtime& r) { return emulated_reference(size, r); }});
}

}  // namespace aprime::bench
