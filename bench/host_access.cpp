#include <algorithm>
#include <vector>

#include "bench/device.hpp"
#include "bench/figure.hpp"
#include "bench/plain.hpp"

// Rule 7: reads of what a device has stored, by `Mapping::read`. The floor of `adaptive` is the better of the
// two fixed choices, measured in the same round: the ski-rental rule promises at most twice that.

namespace aprime::bench {
namespace {

using namespace aprime::literals;

constexpr ByteCount kGranule = 64_KiB;

/// A round is `stores` device stores to one granule, each followed by `reads` reads of `size` bytes.
struct Pattern {
  int stores;
  int reads;
  std::size_t size;
};

class HostAccessChoice final : public Experiment {
 public:
  explicit HostAccessChoice(Pattern pattern) : pattern_(pattern) {}

  Sample round() override {
    const double migrate = seconds(HostAccess::migrate);
    const double adaptive = seconds(HostAccess::adaptive);
    const double bounce = seconds(HostAccess::bounce);
    return {adaptive, std::min(migrate, bounce)};
  }

 private:
  double seconds(HostAccess how) {
    // A mapping of its own, so that no choice inherits what another one has learnt.
    const Mapping mapping = runtime_.map(file_.path(), Access::read_write);
    double total = 0;
    for (int s = 0; s < pattern_.stores; ++s) {
      const double storing =
          timed_on_device(runtime_, read_write(mapping), [](std::byte* data) { store(data, std::byte{1}); });
      // The first store is a fill, which is nobody's choice.
      if (s > 0) total += storing;
      const double start = now();
      for (int r = 0; r < pattern_.reads; ++r) {
        const std::size_t at = static_cast<std::size_t>(r) * pattern_.size % kGranule.value;
        mapping.read(ByteOffset{at}, std::span(buffer_).first(pattern_.size), how);
      }
      total += now() - start;
    }
    return total;
  }

  const Pattern pattern_;
  const PlainFile file_{kGranule, true};
  std::vector<std::byte> buffer_ = std::vector<std::byte>(kGranule.value);
  Runtime runtime_{quiet(DeviceKind::emulated, kGranule, 2_MiB)};
};

}  // namespace

void add_host_access(Figures& figures) {
  const auto add = [&](const char* key, const char* text, double reads, Pattern pattern) {
    figures.push_back({key, text, "the better of migrate and bounce", Unit::microseconds, reads,
                       Goal::ratio_at_most, 2, 31,
                       [pattern] { return std::make_unique<HostAccessChoice>(pattern); }});
  };
  add("adaptive_small", "adaptive: read of 64 B, 2,000 of one device-dirty 64 KiB granule", 2000,
      {1, 2000, 64});
  add("adaptive_whole", "adaptive: read of a whole device-dirty 64 KiB granule", 1, {1, 1, kGranule.value});
  add("adaptive_small_alternating", "adaptive: device store and read of 64 B in turn", 50, {50, 1, 64});
  add("adaptive_whole_alternating", "adaptive: device store and read of 64 KiB in turn", 50,
      {50, 1, kGranule.value});
}

}  // namespace aprime::bench
