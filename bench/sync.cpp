#include "bench/device.hpp"
#include "bench/figure.hpp"
#include "bench/plain.hpp"

namespace aprime::bench {
namespace {

using namespace aprime::literals;

constexpr ByteCount kFile = 16_GiB;
constexpr std::uint64_t kDirty = 1000;
/// A prime number of pages, so that the granules are scattered over the tables as well.
constexpr std::uint64_t kStride = 4153 * kPage;
static_assert(kDirty * kStride <= kFile.value);

/// Dirty granules here and there in a large file that is mostly a hole, made durable.
class ScatteredSync final : public Experiment {
 public:
  ScatteredSync() { mapping_.advise(all_of(mapping_), Advice::random); }

  Sample round() override {
    const std::byte value{++round_};
    std::byte* const pages = pages_.data();
    timed_on_device(runtime_, read_write(mapping_), [value, pages](std::byte* data) {
      for (std::uint64_t i = 0; i < kDirty; ++i) store(data + i * kStride, value);
      for (std::uint64_t i = 0; i < kDirty; ++i) store(pages + i * kPage, value);
    });
    Sample s;
    double start = now();
    mapping_.sync();
    s.measured = now() - start;

    start = now();
    for (std::uint64_t i = 0; i < kDirty; ++i)
      write_all(plain_.fd(), i * kStride, {pages_.data() + i * kPage, kPage});
    plain_.sync();
    s.floor = now() - start;
    return s;
  }

 private:
  const PlainFile file_{kFile, false};
  const PlainFile plain_{kFile, false};
  /// The same stores by the same device thread: the floor, too, writes bytes that another processor's cache
  /// has.
  const PlainMemory pages_ = PlainMemory::anonymous(ByteCount{kDirty * kPage}, true);
  Runtime runtime_{quiet(DeviceKind::emulated, 4_KiB, 16_MiB)};
  const Mapping mapping_ = runtime_.map(file_.path(), Access::read_write);
  std::uint8_t round_ = 0;
};

}  // namespace

void add_sync(Figures& figures) {
  figures.push_back({"scattered_sync",
                     "sync of 1,000 scattered dirty 4 KiB granules in a 16 GiB sparse mapping",
                     "pwrite of them, fdatasync", Unit::milliseconds, 1, Goal::ratio_at_most, 1.3, 21,
                     [] { return std::make_unique<ScatteredSync>(); }});
}

}  // namespace aprime::bench
