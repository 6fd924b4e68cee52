#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "aprime/device_span.hpp"
#include "aprime/kernel.hpp"
#include "tests/stress/byte_kernels.hpp"
#include "tests/stress/tail.hpp"
#include "tests/stress/world.hpp"

namespace aprime::stress {
namespace {

constexpr Grid kGrid{.blocks = {2, 1, 1}, .threads = {4, 1, 1}};

/// Stores to the device's words from element `first` on.
struct MarkTail {
  std::size_t first;
  void operator()(const device_span<std::uint64_t>& words) const {
    const std::size_t thread = blockIdx.x * blockDim.x + threadIdx.x;
    const std::size_t step = gridDim.x * blockDim.x * kTailMarkEvery;
    for (std::size_t i = thread * kTailMarkEvery; i < words.size(); i += step)
      if (i >= first) words.store(i, words.load(i) + 1);
  }
};

/// Truncates, grows and punches the end of the file, and works on it in every way. It is alone there but for
/// the first granule, so it knows each byte exactly.
class TailActor {
 public:
  TailActor(World& world, Random random)
      : world_(world),
        mapping_(world.tail()),
        random_(random),
        map_first_((world.config().granules - 2) * world.granule_bytes()),
        first_(world.tail_first_byte()),
        bytes_(world.plain().size() - first_) {}

  void run() {
    std::uint64_t done = 0;
    for (std::uint64_t n = 0; world_.go_on(done); ++n) {
      world_.take_turn(n, 16);
      const auto began = Journal::Clock::now();
      step();
      world_.journal().note(world_.tail_actor(), Path::tail, first_ / 8, (bytes_.size() + 7) / 8,
                            bytes_.size(), began);
      done = 1;
    }
    if (!world_.shadow().failed()) look(0, bytes_.size(), 6, "at the end");
  }

 private:
  void step() {
    const std::uint64_t what = random_.below(100);
    if (what < 30) return store();
    if (what < 70) return look_somewhere("later");
    if (what < 82) return resize();
    if (what < 90) return discard();
    if (what < 97) return prefetch();
    mapping_.sync();
    look(0, bytes_.size(), 6, "after a sync, past aprime,");
  }

  TailPart somewhere(std::uint64_t most) { return some_part(bytes_.size(), most, random_); }
  /// In the mapping.
  ByteRange range(TailPart p) const { return {ByteOffset{first_ - map_first_ + p.at}, ByteCount{p.size}}; }
  unsigned any_device() { return random_.below32(world_.device_count()); }

  void store() {
    const TailPart p = somewhere(3 * world_.granule_bytes());
    if (p.size == 0) return;
    const auto salt = static_cast<std::uint8_t>(random_.next());
    for (std::uint64_t i = 0; i < p.size; ++i) bytes_[p.at + i] = byte_of(salt, i);
    const std::uint64_t how = random_.below(8);
    if (how < 2) {
      std::memcpy(mapping_.host<std::uint8_t>().data() + range(p).first.value, bytes_.data() + p.at, p.size);
    } else if (how < 5) {
      const auto access = static_cast<HostAccess>(random_.below(3));
      mapping_.write(range(p).first, std::as_bytes(std::span(bytes_)).subspan(p.at, p.size), access);
    } else {
      world_.runtime()
          .launch(kGrid, LaunchOptions{.device = any_device(), .name = "tail"}, StoreBytes{salt},
                  read_write(mapping_, range(p)))
          .wait();
    }
  }

  void look_somewhere(const char* when) {
    const TailPart p = somewhere(3 * world_.granule_bytes());
    if (p.size != 0) look(p.at, p.size, random_.below(6), when);
  }

  void look(std::uint64_t at, std::uint64_t size, std::uint64_t how, const char* when) {
    seen_.resize(size);
    const ByteRange bytes = range({at, size});
    const std::uint64_t granule = world_.granule_bytes();
    if (how < 3)
      mapping_.read(bytes.first, std::as_writable_bytes(std::span(seen_)), static_cast<HostAccess>(how));
    else if (how == 3)
      std::memcpy(seen_.data(), mapping_.host<const std::uint8_t>().data() + bytes.first.value, size);
    else if (how < 6) {
      // By parts that any device has room for.
      for (std::uint64_t done = 0; done < size; done += 4 * granule) {
        const TailPart part{at + done, std::min(size - done, 4 * granule)};
        // Whole granules need not be filled.
        const ByteRange to{ByteOffset{0}, ByteCount{(part.size + granule - 1) / granule * granule}};
        const Mapping& copied = world_.scratch(world_.tail_actor());
        world_.runtime()
            .launch(kGrid, LaunchOptions{.device = any_device(), .name = "tail"}, contract::CopyBytes{},
                    read(mapping_, range(part)), write(copied, to))
            .wait();
        copied.read(to.first, std::as_writable_bytes(std::span(seen_)).subspan(done, part.size));
      }
    } else if (when[0] == 'a' && when[1] == 't') {
      mapping_.read(bytes.first, std::as_writable_bytes(std::span(seen_)));
    } else {
      world_.plain().read(first_ + at, seen_.data(), size);
    }
    const auto differs =
        std::mismatch(seen_.begin(), seen_.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(at));
    if (differs.first == seen_.end()) return;
    const auto i = static_cast<std::uint64_t>(differs.first - seen_.begin());
    world_.shadow().fail(
        fmt::format("the tail's byte {} (byte {} of the file, which has {}) is {:#x}, not {:#x}, {} by "
                    "way {}; the last change of size was from {} to {} bytes of tail",
                    at + i, first_ + at + i, first_ + bytes_.size(), seen_[i], bytes_[at + i], when, how,
                    size_before_, size_after_),
        (first_ + at + i) / 8 < world_.shadow().words() ? (first_ + at + i) / 8 : 0);
  }

  /// Whatever was beyond the new end is gone for good, also where a device had it dirty; what the file grows
  /// by is zeros.
  void resize() {
    const std::uint64_t granule = world_.granule_bytes();
    std::uint64_t size = random_.below(6 * granule);
    if (random_.one_in(4)) size = size / granule * granule;
    if (random_.one_in(6)) size = 0;
    if (random_.one_in(2)) store();
    size_before_ = bytes_.size();
    size_after_ = size;
    mapping_.resize(ByteCount{first_ - map_first_ + size});
    const std::uint64_t now = world_.plain().size();
    if (now != first_ + size)
      world_.shadow().fail(
          fmt::format("the file has {} bytes after it was resized to {}", now, first_ + size));
    const std::uint64_t kept = std::min<std::uint64_t>(bytes_.size(), size);
    bytes_.resize(size);
    std::fill(bytes_.begin() + static_cast<std::ptrdiff_t>(kept), bytes_.end(), std::uint8_t{0});
    if (size > kept && random_.one_in(2)) look(kept, size - kept, random_.below(6), "after it grew");
  }

  void discard() {
    const TailPart p = somewhere(4 * world_.granule_bytes());
    if (p.size == 0) return;
    if (random_.one_in(2)) store();
    mapping_.discard(range(p));
    std::fill_n(bytes_.begin() + static_cast<std::ptrdiff_t>(p.at), p.size, std::uint8_t{0});
    if (random_.one_in(2)) look(p.at, p.size, random_.below(6), "after a discard");
  }

  void prefetch() {
    const TailPart p = somewhere(4 * world_.granule_bytes());
    if (p.size == 0) return;
    if (random_.one_in(4)) return mapping_.prefetch_home(range(p));
    mapping_.prefetch(range(p), any_device(), random_.one_in(2) ? Right::read_write : Right::read);
  }

  World& world_;
  Mapping& mapping_;
  Random random_;
  const std::uint64_t map_first_;
  const std::uint64_t first_;
  /// What the tail must hold.
  std::vector<std::uint8_t> bytes_;
  std::vector<std::uint8_t> seen_;
  std::uint64_t size_before_ = 0;
  std::uint64_t size_after_ = 0;
};

}  // namespace

void run_tail_marker(World& world, Random random) {
  const std::uint64_t granule = world.granule_bytes();
  const std::uint64_t map_first = (world.config().granules - 2) * granule;
  const std::uint64_t first = world.tail_first_byte() - map_first;
  const std::uint64_t end = world.tail().size_bytes().value / 8 * 8;
  std::uint64_t done = 0;
  for (std::uint64_t n = 0; world.go_on(done); ++n) {
    world.take_turn(n, 100);
    const auto began = Journal::Clock::now();
    const std::uint64_t at = random.between(first / granule, (end - 1) / granule) * granule;
    const ByteRange range{ByteOffset{at}, ByteCount{std::min(granule, end - at)}};
    done = 1;
    try {
      const LaunchOptions options{.device = random.below32(world.device_count()), .name = "tail"};
      world.runtime()
          .launch(kGrid, options, MarkTail{first > at ? (first - at + 7) / 8 : 0},
                  demand_read_write(world.tail(), range))
          .wait();
    } catch (const Error& error) {
      if (error.code() != Errc::out_of_range) throw;  // the file ends before
    }
    world.journal().note(world.tail_actor(), Path::tail, (map_first + at) / 8, range.size.value / 8, 0,
                         began);
  }
}

void run_tail_actor(World& world, Random random) { TailActor(world, random).run(); }

}  // namespace aprime::stress
