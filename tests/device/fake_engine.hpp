#pragma once

#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "aprime/kernel.hpp"
#include "host/device/device.hpp"

// The least that stands where the engine will: home in memory, and a directory of one device and one file.

namespace aprime::device {

/// A file of `size` bytes in memory. Fails where it is told to.
class FakeHome final : public HomePort {
 public:
  explicit FakeHome(std::uint64_t size)
      : size_(size), memory_(os::Mapped::anonymous(static_cast<std::size_t>(size) + os::kPageBytes)) {
    for (std::uint64_t i = 0; i < size; ++i) memory_.data()[i] = pattern(i);
  }
  /// Tells neighbouring bytes, pages and granules apart; never zero.
  static std::byte pattern(std::uint64_t at) {
    return static_cast<std::byte>(at * 7 % 251 + at / 4096 % 4 + 1);
  }

  Status read(ByteOffset at, std::span<std::byte> into) noexcept override {
    if (at.value + into.size() > fail_reads_from) return {Errc::io, EIO, ByteOffset{fail_reads_from}};
    const std::uint64_t have = std::min<std::uint64_t>(into.size(), size_ - std::min(size_, at.value));
    std::memcpy(into.data(), memory_.data() + at.value, have);
    std::memset(into.data() + have, 0, into.size() - have);
    return {};
  }
  Status write(ByteOffset at, std::span<const std::byte> from) noexcept override {
    if (at.value + from.size() > fail_writes_from)
      return {Errc::no_space, ENOSPC, ByteOffset{fail_writes_from}};
    std::memcpy(memory_.data() + at.value, from.data(),
                std::min<std::uint64_t>(from.size(), size_ - std::min(size_, at.value)));
    return {};
  }
  std::span<const std::byte> alias() noexcept override { return {memory_.data(), alias_bytes}; }

  std::byte* data() const { return memory_.data(); }
  std::uint64_t size() const { return size_; }

  std::uint64_t fail_reads_from = ~std::uint64_t{0};
  std::uint64_t fail_writes_from = ~std::uint64_t{0};
  /// How much of the file the alias shows.
  std::size_t alias_bytes = 0;

 private:
  const std::uint64_t size_;
  os::Mapped memory_;
};

/// A device to test, and the sizes to test it with.
struct Personality {
  std::string name;
  bool strict;
  bool without_userfaultfd;
  std::uint64_t granule;
  std::uint64_t frame;

  DeviceOptions options(std::uint64_t frames) const {
    DeviceOptions o;
    o.memory = ByteCount{frames * frame};
    o.workers = 2;
    o.without_userfaultfd = without_userfaultfd;
    return o;
  }
  std::unique_ptr<Device> make(std::uint64_t frames = 64) const {
    return strict ? make_emulated_strict(options(frames), ByteCount{frame})
                  : make_emulated_faulting(options(frames), ByteCount{frame});
  }
  friend void PrintTo(const Personality& p, std::ostream* out) { *out << p.name; }
};

inline std::vector<Personality> with_sizes(const std::string& name, bool strict, bool without_userfaultfd) {
  return {{name + "_4k", strict, without_userfaultfd, 4096, 4096},
          {name + "_16k_in_4k_frames", strict, without_userfaultfd, 16384, 4096},
          {name + "_64k", strict, without_userfaultfd, 65536, 65536}};
}
inline std::vector<Personality> faulting_personalities() {
  std::vector<Personality> all = with_sizes("userfaultfd", false, false);
  for (Personality& p : with_sizes("mprotect", false, true)) all.push_back(std::move(p));
  return all;
}
inline std::vector<Personality> strict_personalities() { return with_sizes("strict", true, false); }
inline std::vector<Personality> all_personalities() {
  std::vector<Personality> all = faulting_personalities();
  for (Personality& p : strict_personalities()) all.push_back(std::move(p));
  return all;
}

/// One file on one device, with the shortest directory that works: a lock and a right per granule.
class FakeEngine final : public FaultHandler {
 public:
  enum class Given : std::uint8_t { nothing, read, write };

  FakeEngine(const Personality& personality, std::uint64_t file_bytes, std::uint64_t frames = 64)
      : granule(GranuleSize::of(ByteCount{personality.granule})),
        home(file_bytes),
        device(personality.make(frames)),
        cells_(1024) {
    const GranuleCount count = granule.count_for(ByteCount{file_bytes});
    region = device->attach(
        {RegionId{3}, granule, FrameCount{personality.granule / personality.frame}, "x.f32", count}, *this);
  }

  Status on_device_fault(Region&, GranuleIndex g, bool write) noexcept override {
    ++faults;
    if (!refuse.is_ok()) return refuse;
    if (before_fault)
      if (const Status status = before_fault(g); !status.is_ok()) return status;
    const Locked locked(*this, g);
    return give_locked(g, write);
  }

  /// As the engine would do it for a lease. \returns the device address of the first granule
  std::byte* give(GranuleRange run, bool write) {
    for (GranuleIndex g = run.first; g < run.end(); ++g.value) {
      const Locked locked(*this, g);
      if (!give_locked(g, write).is_ok()) std::abort();
    }
    return address(run.first);
  }
  Status take_frame(GranuleIndex g) noexcept {
    const auto claim = device->frames().claim(region->params().frames_per_granule, {region->params().id, g});
    if (claim.kind != FramePool::Claim::Kind::got) return {Errc::device_memory, 0, {}};
    region->set_frame(g, claim.frame);
    return {};
  }
  void take_frames(GranuleRange run) {
    for (GranuleIndex g = run.first; g < run.end(); ++g.value)
      if (!take_frame(g).is_ok()) std::abort();
  }
  void give_frame_back(GranuleIndex g) noexcept {
    device->frames().free(region->frame_of(g), region->params().frames_per_granule);
    region->clear_frame(g);
  }
  std::byte* address(GranuleIndex g) {
    std::byte* const window = region->window();
    return window != nullptr ? window + granule.offset_of(g).value
                             : device->frame_address(region->frame_of(g));
  }

  class Locked {
   public:
    Locked(FakeEngine& engine, GranuleIndex g) noexcept : locked_(engine.cells_[g.value].locked) {
      while (locked_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
    }
    ~Locked() { locked_.store(false, std::memory_order_release); }
    Locked(const Locked&) = delete;
    Locked& operator=(const Locked&) = delete;

   private:
    std::atomic<bool>& locked_;
  };
  /// Under the granule's lock.
  Given& given(GranuleIndex g) { return cells_[g.value].given; }

  const GranuleSize granule;
  FakeHome home;
  std::unique_ptr<Device> device;
  std::unique_ptr<Region> region;
  std::atomic<std::uint64_t> faults{0};
  /// Answer to all faults, unless ok.
  Status refuse;
  /// Called before a fault is served, which is not if the answer is not ok.
  std::function<Status(GranuleIndex)> before_fault;

 private:
  struct Cell {
    std::atomic<bool> locked{false};
    Given given = Given::nothing;
  };

  Status give_locked(GranuleIndex g, bool write) noexcept {
    const GranuleRange one{g, GranuleCount{1}};
    Given& now = given(g);
    const Given before = now;
    if (now == Given::nothing) {
      if (const Status status = take_frame(g); !status.is_ok()) return status;
      if (const Progress p = region->fill(one, home); !p.status.is_ok()) {
        give_frame_back(g);
        return p.status;
      }
      now = Given::read;
    }
    if (write && now == Given::read) {
      if (const Progress p = region->grant_write(one); !p.status.is_ok()) return p.status;
      now = Given::write;
    }
    return now == before ? region->restore(one, now == Given::write) : Status{};
  }

  std::vector<Cell> cells_;
};

inline constexpr GranuleRange granules(std::uint64_t first, std::uint64_t count) {
  return {GranuleIndex{first}, GranuleCount{count}};
}

/// An access that no compiler leaves out.
inline void load_from(const std::byte* at) {
  [[maybe_unused]] const unsigned char seen = *reinterpret_cast<const volatile unsigned char*>(at);
}

inline void store_to(std::byte* at) { *reinterpret_cast<volatile unsigned char*>(at) = 1; }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kReportsSignals = true;
#else
inline constexpr bool kReportsSignals = false;
#endif
/// For EXPECT_EXIT: whether a signal ended the process, or a sanitizer did that reported it instead.
class EndedBy {
 public:
  explicit EndedBy(int signal) : signal_(signal) {}
  bool operator()(int status) const {
    return kReportsSignals ? WIFEXITED(status) && WEXITSTATUS(status) != 0
                           : WIFSIGNALED(status) && WTERMSIG(status) == signal_;
  }

 private:
  int signal_;
};

inline bool all_are(std::byte value, std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [value](std::byte b) { return b == value; });
}

/// Runs `kernel()` once for each of `blocks` blocks of one thread.
template <class Kernel>
LaunchResult run_kernel(Device& device, const Kernel& kernel, unsigned blocks = 1) {
  const auto run = [](const void* closure, detail::ThreadCursor& cursor) {
    while (cursor.next()) (*static_cast<const Kernel*>(closure))();
  };
  return device.run({&kernel, run, "saxpy"}, Grid{Dim3{blocks, 1, 1}, Dim3{1, 1, 1}, 0});
}

inline DeviceFaultStatus describe(const Device& device, const LaunchResult& result) {
  DeviceFaultStatus status;
  status.kernel = "saxpy";
  device.describe(result.fault, status);
  return status;
}

}  // namespace aprime::device
