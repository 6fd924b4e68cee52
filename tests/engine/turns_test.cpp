// Large leases: two parts are on their way to the device at a time, and nobody waits in the wrong order.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "host/device/framed_region.hpp"
#include "host/engine/device_lease.hpp"
#include "host/engine/mapping_state.hpp"
#include "host/engine/runtime_state.hpp"
#include "tests/contract/contract.hpp"
#include "tests/os/temporary_file.hpp"

namespace aprime::engine {
namespace {

using namespace contract;

constexpr std::uint64_t kGranules = 512;
/// Granules that one thread takes at a time: half of what the device copies at once.
constexpr std::uint64_t kPart = 128;

constexpr GranuleRange at(std::uint64_t first, std::uint64_t count) {
  return {GranuleIndex{first}, GranuleCount{count}};
}

/// Frames that hold nothing. `filling` is called for each copy from home, and may let it fail.
struct Frames final : device::FrameMemory {
  std::byte* address(FrameIndex) const noexcept override { return nullptr; }
  ByteCount copied_at_once() const noexcept override { return ByteCount{2 * kPart * kGranule}; }
  Status fill(device::FrameBytes to, device::HomePort&, ByteOffset from) noexcept override {
    return filling({GranuleIndex{from.value / kGranule}, GranuleCount{to.size.value / kGranule}});
  }
  Status copy_home(device::FrameBytes, device::HomePort&, ByteOffset) noexcept override { return {}; }
  Status zero(device::FrameBytes) noexcept override { return {}; }
  Status read(device::FrameBytes, std::span<std::byte>) noexcept override { return {}; }
  Status write(device::FrameBytes, std::span<const std::byte>) noexcept override { return {}; }
  Status copy(device::FrameBytes, FrameIndex) noexcept override {
    ++copies;
    return {};
  }
  Status open(FrameIndex, FrameCount, Right) noexcept override { return {}; }
  void close(FrameIndex, FrameCount, Right) noexcept override {}
  bool is_leased(FrameIndex, FrameCount, Right) const noexcept override { return false; }
  void label(FrameIndex, FrameCount, device::RegionId, ByteOffset) noexcept override {}
  void clear_label(FrameIndex, FrameCount) noexcept override {}

  std::atomic<unsigned> copies{0};
  std::function<Status(GranuleRange)> filling = [](GranuleRange) { return Status{}; };
};

/// A software-paged device that runs nothing.
struct Memory final : device::Device {
  explicit Memory(Frames& f)
      : Device({.name = "memory",
                .description = "",
                .chosen_because = {},
                .hardware_paged = false,
                .memory = ByteCount{2 * kGranules * kGranule},
                .workers = 1},
               ByteCount{kGranule}, FrameCount{2 * kGranules}),
        frames_of_it(f) {}
  std::unique_ptr<device::Region> attach(device::RegionParams params, device::FaultHandler&) override {
    struct Region final : device::FramedRegion {
      using FramedRegion::FramedRegion;
      detail::PagedWindow paged_window() override { return {}; }
    };
    return std::make_unique<Region>(std::move(params), frames_of_it, frame_bytes_);
  }
  device::LaunchResult run(const detail::KernelBody&, const Grid&,
                           std::span<device::Region* const>) override {
    return {};
  }
  Status open_lease(device::Region&, GranuleRange, Right) noexcept override { return {}; }
  void close_lease(device::Region&, GranuleRange, Right) noexcept override {}
  void describe(const device::KernelFault&, DeviceFaultStatus&) const override {}

  Frames& frames_of_it;
};

class Turns : public testing::Test {
 protected:
  static std::shared_ptr<RuntimeState> make(Frames& frames) {
    std::vector<std::unique_ptr<device::Device>> devices;
    devices.push_back(std::make_unique<Memory>(frames));
    return std::make_shared<RuntimeState>(
        RuntimeOptions{.granule = ByteCount{kGranule}, .dirty_age_max = std::chrono::milliseconds{0}},
        std::move(devices));
  }

  std::unique_ptr<DeviceLeases> lease() {
    const std::vector<FileRequest> all{
        {mapping_->shared_file(), {ByteOffset{0}, ByteCount{kGranules * kGranule}}, Right::read_write}};
    return std::make_unique<DeviceLeases>(file().device_slot(0), all);
  }
  CoherentFile& file() { return mapping_->file(); }
  device::FramePool& pool() { return file().device_slot(0).device().frames(); }
  bool has_pins(GranuleRange range, unsigned pins) {
    for (GranuleIndex g = range.first; g < range.end(); ++g.value) {
      if (file().directory().load(g).pins() != pins) return false;
      if (!file().region(0).has_frame(g)) {
        if (pins != 0) return false;
      } else if (pool().is_pinned(file().region(0).frame_of(g)) != (pins != 0)) {
        return false;
      }
    }
    return true;
  }
  static bool becomes_true(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{20};
    while (!condition() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    return condition();
  }

  test::TemporaryDirectory directory_;
  Frames frames_;
  std::shared_ptr<RuntimeState> runtime_ = make(frames_);
  std::shared_ptr<MappingState> mapping_ =
      runtime_->map(directory_.file("f", Bytes(kGranules* kGranule)), Access::read_write, {});
};

TEST_F(Turns, two_parts_are_on_their_way_at_a_time) {
  std::atomic<unsigned> begun{0};
  std::atomic<bool> together{false};
  frames_.filling = [&](GranuleRange) {
    if (++begun == 1) together = becomes_true([&] { return begun > 1; });
    return Status{};
  };
  std::unique_ptr<DeviceLeases> leases = lease();
  EXPECT_TRUE(together);
  EXPECT_EQ(begun, kGranules / kPart);
  EXPECT_TRUE(has_pins(at(0, kGranules), 1));
  leases.reset();
  EXPECT_TRUE(has_pins(at(0, kGranules), 0));
}

/// Whoever has the granule may be waiting for one that lies behind it.
TEST_F(Turns, who_waits_for_a_granule_holds_none_behind_it) {
  constexpr std::uint64_t kBusy = kPart / 2;
  std::atomic<bool> last_is_there{false};
  std::atomic<bool> was_there{false};
  frames_.filling = [&](GranuleRange run) {
    if (run.first == GranuleIndex{0}) was_there = becomes_true([&] { return last_is_there.load(); });
    if (run.first == GranuleIndex{kGranules - kPart}) last_is_there = true;
    return Status{};
  };
  file().directory().begin(GranuleIndex{kBusy});
  std::future<std::unique_ptr<DeviceLeases>> leases = std::async(std::launch::async, [&] { return lease(); });
  EXPECT_TRUE(becomes_true([&] { return file().directory().load(GranuleIndex{kBusy}).has_waiters(); }));
  EXPECT_TRUE(was_there);
  EXPECT_TRUE(has_pins(at(0, kBusy), 1));
  EXPECT_TRUE(has_pins(at(kBusy, kGranules - kBusy), 0));

  // What was let go may leave, and its frames are kept for the lease.
  constexpr GranuleIndex last{kGranules - 1};
  EXPECT_TRUE(file().perform({last, GranuleCount{1}}, {.event = Event::discard}).is_ok());
  EXPECT_FALSE(file().region(0).has_frame(last));
  EXPECT_EQ(pool().free_count(), FrameCount{kGranules});

  file().directory().end(GranuleIndex{kBusy});
  EXPECT_NE(leases.get(), nullptr);
  EXPECT_TRUE(has_pins(at(0, kGranules), 0));
}

TEST_F(Turns, copies_that_lie_in_a_row_move_in_one_go) {
  const GranuleRange before = at(kPart, kPart);
  ASSERT_TRUE(file().perform(before, {.event = Event::write, .requester = AgentId::device(0)}).is_ok());
  const std::unique_ptr<DeviceLeases> leases = lease();
  EXPECT_EQ(frames_.copies, 1U);
  EXPECT_TRUE(has_pins(at(0, kGranules), 1));
  const FrameIndex first = file().region(0).frame_of(GranuleIndex{0});
  for (std::uint64_t i = 0; i < kGranules; ++i) {
    const FrameIndex frame = file().region(0).frame_of(GranuleIndex{i});
    EXPECT_EQ(frame.value, first.value + i);
    EXPECT_EQ(pool().owner_at(frame)->granule, GranuleIndex{i});
    EXPECT_NE(pool().dirty_since(frame), 0U);
  }
}

TEST_F(Turns, a_copy_that_fails_leaves_no_pin) {
  for (const std::uint64_t part : {0, 1, 2, 3}) {
    ASSERT_TRUE(file().perform(at(0, kGranules), {.event = Event::discard}).is_ok());
    const GranuleIndex bad{part * kPart + 3};
    frames_.filling = [&](GranuleRange run) {
      return run.first <= bad && bad < run.end() ? Status{Errc::io, EIO, {}} : Status{};
    };
    EXPECT_EQ(code_of([&] { lease(); }), Errc::io);
    EXPECT_TRUE(has_pins(at(0, kGranules), 0));
  }
  frames_.filling = [](GranuleRange) { return Status{}; };
  const std::unique_ptr<DeviceLeases> leases = lease();
  EXPECT_TRUE(has_pins(at(0, kGranules), 1));
}

}  // namespace
}  // namespace aprime::engine
