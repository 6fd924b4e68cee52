// What only a device has whose kernels may touch what they leased: leases.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "host/device/twin_memory.hpp"
#include "host/os/syscalls.hpp"
#include "tests/device/fake_engine.hpp"

namespace aprime::device {
namespace {

class StrictDevice : public testing::TestWithParam<Personality> {
 protected:
  ~StrictDevice() override { os::sys::clear_fault_plan(); }

  static constexpr std::uint64_t kGranules = 6;
  std::uint64_t granule_bytes() const { return GetParam().granule; }
  FakeEngine engine_{GetParam(), kGranules* GetParam().granule};
  Device& device_ = *engine_.device;
  Region& region_ = *engine_.region;
  const GranuleRange all_ = granules(0, kGranules);
  std::byte* const memory_ = device_.frame_address(FrameIndex{0});

  void open(GranuleRange run, Right right) { ASSERT_TRUE(device_.open_lease(region_, run, right).is_ok()); }
  void close(GranuleRange run, Right right) { device_.close_lease(region_, run, right); }

  template <class Kernel>
  DeviceFaultStatus outcome_of(const Kernel& kernel) {
    const LaunchResult result = run_kernel(device_, kernel);
    if (result.completed()) return {};
    EXPECT_EQ(result.outcome, LaunchOutcome::fault);
    return describe(device_, result);
  }
  DeviceFaultStatus load(const std::byte* at) {
    return outcome_of([at] { load_from(at); });
  }
  DeviceFaultStatus store(std::byte* at) {
    return outcome_of([at] { store_to(at); });
  }
};

INSTANTIATE_TEST_SUITE_P(Devices, StrictDevice, testing::ValuesIn(strict_personalities()),
                         [](const auto& instance) { return instance.param.name; });

TEST(StrictDeviceMemory, LargerThanAFileMayBeIsRefusedAndEndsNothing) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit low{1 << 20, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &low), 0);
  try {
    const TwinMemory memory(std::size_t{2} << 20);
    ADD_FAILURE() << "no exception";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::resources);
    EXPECT_THAT(e.what(), testing::HasSubstr("ulimit -f"));
  }
  EXPECT_NO_THROW(TwinMemory(std::size_t{1} << 20));
  ::setrlimit(RLIMIT_FSIZE, &before);
}

TEST_P(StrictDevice, AStoreUnderAReadLeaseStopsTheKernel) {
  std::byte* const base = engine_.give(all_, true);
  open(all_, Right::read);
  EXPECT_TRUE(load(base + granule_bytes() + 8).is_ok());
  const DeviceFaultStatus status = store(base + granule_bytes() + 8);
  const std::uint64_t offset = granule_bytes() + 8;
  EXPECT_EQ(status.code, Errc::access_denied);
  EXPECT_EQ(status.message,
            "kernel saxpy stored to x.f32 at offset " + std::to_string(offset) + " under a read lease");
  EXPECT_EQ(status.kernel, "saxpy");
  EXPECT_EQ(status.path, "x.f32");
  EXPECT_EQ(status.offset, ByteOffset{offset});
  EXPECT_TRUE(status.was_write);
  close(all_, Right::read);
}

TEST_P(StrictDevice, AFileThatIsNotLeasedIsNamed) {
  std::byte* const base = engine_.give(all_, true);
  open(granules(0, 2), Right::read_write);
  EXPECT_TRUE(store(base + 2 * granule_bytes() - 1).is_ok());
  const DeviceFaultStatus status = load(base + 2 * granule_bytes());
  EXPECT_EQ(status.code, Errc::out_of_range);
  EXPECT_EQ(status.message, "kernel saxpy loaded x.f32 at offset " + std::to_string(2 * granule_bytes()) +
                                " outside any lease");
  EXPECT_FALSE(status.was_write);
  close(granules(0, 2), Right::read_write);
  EXPECT_EQ(store(base).code, Errc::out_of_range) << "the lease is over";
}

TEST_P(StrictDevice, MemoryThatIsNobodysBelongsToNoLease) {
  engine_.give(granules(0, 1), true);
  const auto message = [](const char* did, char sign, std::uint64_t distance) {
    char text[200];
    std::snprintf(text, sizeof text,
                  "kernel saxpy %s outside any lease: device address %c%#zx belongs to no lease", did, sign,
                  static_cast<std::size_t>(distance));
    return std::string(text);
  };
  const std::uint64_t end = device_.info().memory.value;
  EXPECT_EQ(store(memory_ + end - 8).message, message("stored", '+', end - 8));
  EXPECT_EQ(load(memory_ + end + 8).message, message("loaded", '+', end + 8))
      << "off the end of device memory";
  EXPECT_EQ(load(memory_ - 16).message, message("loaded", '-', 16)) << "before its start";
  EXPECT_EQ(load(memory_ - 16).code, Errc::out_of_range);
  EXPECT_EQ(load(memory_ - 16).path, "");

  ASSERT_TRUE(region_.release(granules(0, 1)).status.is_ok());
  EXPECT_EQ(load(memory_ + 4).message, message("loaded", '+', 4)) << "what was released is nobody's again";
}

TEST_P(StrictDevice, TheStrongestOfOverlappingLeasesCounts) {
  std::byte* const base = engine_.give(all_, true);
  const auto at = [&](std::uint64_t granule) { return base + granule * granule_bytes() + 3; };
  open(granules(0, 4), Right::read);
  open(granules(2, 4), Right::read);
  open(granules(1, 2), Right::write);
  EXPECT_EQ(store(at(0)).code, Errc::access_denied);
  EXPECT_TRUE(store(at(1)).is_ok());
  EXPECT_TRUE(store(at(2)).is_ok());
  EXPECT_EQ(store(at(3)).code, Errc::access_denied);
  close(granules(0, 4), Right::read);
  EXPECT_EQ(load(at(0)).code, Errc::out_of_range);
  EXPECT_TRUE(store(at(1)).is_ok()) << "the write lease is still open";
  EXPECT_TRUE(load(at(3)).is_ok()) << "so is the other read lease";
  close(granules(1, 2), Right::write);
  EXPECT_EQ(load(at(1)).code, Errc::out_of_range);
  EXPECT_EQ(store(at(2)).code, Errc::access_denied);
  close(granules(2, 4), Right::read);
  EXPECT_EQ(load(at(2)).code, Errc::out_of_range);
}

TEST_P(StrictDevice, FramesInAnyOrderHoldTheirGranules) {
  for (const std::uint64_t g : {3u, 0u, 1u, 5u, 4u, 2u}) engine_.take_frames(granules(g, 1));
  ASSERT_EQ(region_.fill(all_, engine_.home).done, all_.count);
  open(all_, Right::read);
  for (std::uint64_t g = 0; g < kGranules; ++g) {
    const std::byte* const at = engine_.address(GranuleIndex{g});
    std::vector<std::byte> seen(granule_bytes());
    ASSERT_TRUE(run_kernel(device_, [&] { std::memcpy(seen.data(), at, seen.size()); }).completed());
    EXPECT_EQ(std::memcmp(seen.data(), engine_.home.data() + g * granule_bytes(), granule_bytes()), 0) << g;
  }
  close(all_, Right::read);
  ASSERT_TRUE(region_.protect(all_).status.is_ok());
  std::vector<std::byte> before(engine_.home.data(), engine_.home.data() + engine_.home.size());
  std::memset(engine_.home.data(), 0, engine_.home.size());
  ASSERT_EQ(region_.copy_home(all_, engine_.home).done, all_.count);
  EXPECT_EQ(std::memcmp(engine_.home.data(), before.data(), before.size()), 0);
}

TEST_P(StrictDevice, MovedGranulesTakeTheirBytesAndTheirNamesAlong) {
  engine_.give(granules(0, 3), true);
  const GranuleRange row = granules(1, 2);
  const FrameIndex from = region_.frame_of(row.first);
  const FrameIndex to{32};
  const std::uint64_t step = region_.params().frames_per_granule.value;
  ASSERT_TRUE(region_.move(row, to).is_ok());
  for (std::uint64_t i = 0; i < row.count.value; ++i) {
    const GranuleIndex g = row.first + GranuleCount{i};
    const FrameIndex there{to.value + i * step};
    region_.set_frame(g, there);
    EXPECT_EQ(load(device_.frame_address(there) + 2).offset, ByteOffset{g.value * granule_bytes() + 2});
    EXPECT_EQ(load(device_.frame_address(FrameIndex{from.value + i * step})).path, "");
    open({g, GranuleCount{1}}, Right::read);
    std::byte seen{};
    ASSERT_TRUE(run_kernel(device_, [&] { seen = device_.frame_address(there)[2]; }).completed());
    EXPECT_EQ(seen, FakeHome::pattern(g.value * granule_bytes() + 2));
    close({g, GranuleCount{1}}, Right::read);
  }
}

TEST_P(StrictDevice, ALeaseThatTheHardwareLostIsRestored) {
  std::byte* const base = engine_.give(all_, true);
  open(granules(0, 2), Right::read_write);
  // Out of memory areas: all rights are taken to make room for this change.
  os::sys::set_fault_plan({os::sys::Call::mprotect, 1, 1, ENOMEM});
  open(granules(4, 1), Right::read);
  os::sys::clear_fault_plan();
  EXPECT_TRUE(store(base).is_ok());
  EXPECT_TRUE(load(base + granule_bytes()).is_ok());
  EXPECT_TRUE(load(base + 4 * granule_bytes()).is_ok());
  EXPECT_EQ(store(base + 4 * granule_bytes()).code, Errc::access_denied);
  close(granules(0, 2), Right::read_write);
  close(granules(4, 1), Right::read);
}

TEST_P(StrictDevice, AHostThreadHasNoBusinessInTheView) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(load_from(memory_), EndedBy(SIGSEGV), kReportsSignals ? "SEGV on unknown address" : "");
}

TEST_P(StrictDevice, StoresOfAKernelAreThereWhenItEnds) {
  std::byte* const base = engine_.give(all_, true);
  open(all_, Right::write);
  const auto fill = [&] {
    for (std::uint64_t i = blockIdx.x; i < kGranules * granule_bytes(); i += 4)
      base[i] = static_cast<std::byte>(i);
  };
  ASSERT_TRUE(run_kernel(device_, fill, 4).completed());
  close(all_, Right::write);
  ASSERT_TRUE(region_.protect(all_).status.is_ok());
  ASSERT_TRUE(region_.copy_home(all_, engine_.home).status.is_ok());
  std::uint64_t wrong = 0;
  for (std::uint64_t i = 0; i < engine_.home.size(); ++i)
    wrong += engine_.home.data()[i] != static_cast<std::byte>(i);
  EXPECT_EQ(wrong, 0u);
}

}  // namespace
}  // namespace aprime::device
