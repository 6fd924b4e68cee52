// What only a device has whose kernels may touch any byte of a window: faults.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <random>
#include <thread>

#include "host/os/syscalls.hpp"
#include "tests/device/fake_engine.hpp"
#include "tests/test_scale.hpp"

namespace aprime::device {
namespace {

class FaultingDevice : public testing::TestWithParam<Personality> {
 protected:
  ~FaultingDevice() override { os::sys::clear_fault_plan(); }

  static constexpr std::uint64_t kGranules = 6;
  std::uint64_t granule_bytes() const { return GetParam().granule; }
  FakeEngine engine_{GetParam(), kGranules* GetParam().granule};
  Region& region_ = *engine_.region;
  std::byte* const window_ = region_.window();
  const GranuleRange all_ = granules(0, kGranules);

  LaunchResult touch_each_granule(bool write) {
    return run_kernel(*engine_.device, [&] {
      for (std::uint64_t g = 0; g < kGranules; ++g) {
        std::byte* const at = window_ + g * granule_bytes() + 5;
        if (write) {
          store_to(at);
        } else {
          load_from(at);
        }
      }
    });
  }
};

INSTANTIATE_TEST_SUITE_P(Devices, FaultingDevice, testing::ValuesIn(faulting_personalities()),
                         [](const auto& instance) { return instance.param.name; });

TEST_P(FaultingDevice, AGranuleFaultsOnceToBeReadAndOnceToBeStoredTo) {
  ASSERT_TRUE(touch_each_granule(false).completed());
  EXPECT_EQ(engine_.faults, kGranules);
  ASSERT_TRUE(touch_each_granule(false).completed());
  EXPECT_EQ(engine_.faults, kGranules);
  ASSERT_TRUE(touch_each_granule(true).completed());
  EXPECT_EQ(engine_.faults, 2 * kGranules) << "a read fault never grants the right to store";
  ASSERT_TRUE(touch_each_granule(true).completed());
  EXPECT_EQ(engine_.faults, 2 * kGranules);
}

TEST_P(FaultingDevice, AKernelReadsHomeThroughFaults) {
  std::atomic<std::uint64_t> wrong{0};
  const auto read_all = [&] {
    for (std::uint64_t i = 0; i < kGranules * granule_bytes(); i += 64)
      wrong += window_[i] != FakeHome::pattern(i);
  };
  ASSERT_TRUE(run_kernel(*engine_.device, read_all, 4).completed());
  EXPECT_EQ(wrong, 0u);
}

TEST_P(FaultingDevice, AFaultThatCannotBeServedStopsTheKernel) {
  struct Case {
    Status refuse;
    const char* message;
  };
  const std::string store =
      "kernel saxpy stored to x.f32 at offset " + std::to_string(granule_bytes() + 5) + ", ";
  for (const Case& c :
       {Case{{Errc::io, EIO, {}}, "but reading or writing the file failed (Input/output error)"},
        Case{{Errc::access_denied, 0, {}}, "but the file is mapped for reading only"},
        Case{{Errc::out_of_range, 0, {}}, "which is beyond the end of the file"},
        Case{{Errc::device_memory, 0, {}},
             "but all device memory is in use by leases; give the device more memory"}}) {
    engine_.refuse = c.refuse;
    const LaunchResult result = run_kernel(*engine_.device, [&] { store_to(window_ + granule_bytes() + 5); });
    ASSERT_EQ(result.outcome, LaunchOutcome::fault);
    const DeviceFaultStatus status = describe(*engine_.device, result);
    EXPECT_EQ(status.code, c.refuse.code);
    EXPECT_EQ(status.system_error, c.refuse.system_error);
    EXPECT_EQ(status.path, "x.f32");
    EXPECT_EQ(status.offset, ByteOffset{granule_bytes() + 5});
    EXPECT_TRUE(status.was_write);
    EXPECT_EQ(status.message, store + c.message);
  }
  engine_.refuse = {};
  EXPECT_TRUE(touch_each_granule(true).completed()) << "the device is as good as new";
}

TEST_P(FaultingDevice, TheWindowBeyondTheGranulesIsOutOfRange) {
  const std::uint64_t beyond = 2 * kGranules * granule_bytes() + 3;
  const LaunchResult result = run_kernel(*engine_.device, [&] { load_from(window_ + beyond); });
  ASSERT_EQ(result.outcome, LaunchOutcome::fault);
  const DeviceFaultStatus status = describe(*engine_.device, result);
  EXPECT_EQ(status.code, Errc::out_of_range);
  EXPECT_EQ(status.message, "kernel saxpy loaded x.f32 at offset " + std::to_string(beyond) +
                                ", which is beyond the end of the file");
  EXPECT_EQ(engine_.faults, 0u) << "nobody is asked for a granule that does not exist";
}

TEST_P(FaultingDevice, AHostThreadIsServedToo) {
  EXPECT_EQ(window_[granule_bytes() + 1], FakeHome::pattern(granule_bytes() + 1));
  EXPECT_EQ(engine_.faults, 1u);
}

TEST_P(FaultingDevice, AHostThreadThatCannotBeServedGetsABusError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  engine_.refuse.code = Errc::io;
  EXPECT_EXIT(load_from(window_), EndedBy(SIGBUS), kReportsSignals ? "BUS on unknown address" : "");
}

/// Threads count in pairs of words, all granules over, while the granules are taken from them and brought
/// home. A pair is stored first word first, so a copy that is taken at one instant has both equal, or the
/// first one ahead.
TEST_P(FaultingDevice, NoStoreIsLostAndNoCopyIsTorn) {
  constexpr unsigned kBlocks = 8;
  const auto rounds = test::scaled<std::uint64_t>(4000);
  std::memset(engine_.home.data(), 0, kGranules * granule_bytes());
  const auto pair_at = [&](std::byte* base, std::uint64_t block) {
    return reinterpret_cast<volatile std::uint64_t*>(base + block * 64);
  };
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> torn{0};
  std::atomic<std::uint64_t> unstable{0};

  std::thread taker([&] {
    std::mt19937_64 random(7);
    std::vector<std::byte> first(granule_bytes());
    std::vector<std::byte> second(granule_bytes());
    while (!done) {
      const GranuleIndex g{random() % kGranules};
      const GranuleRange one{g, GranuleCount{1}};
      const FakeEngine::Locked locked(engine_, g);
      if (engine_.given(g) != FakeEngine::Given::write) continue;
      bool good = region_.protect(one).status.is_ok() && region_.copy_home(one, engine_.home).status.is_ok();
      engine_.given(g) = FakeEngine::Given::read;
      good = good && region_.read_copy(g, ByteCount{0}, first).is_ok();
      std::this_thread::yield();
      good = good && region_.read_copy(g, ByteCount{0}, second).is_ok();
      unstable +=
          !good || first != second ||
          std::memcmp(first.data(), engine_.home.data() + g.value * granule_bytes(), granule_bytes()) != 0;
      for (std::uint64_t block = 0; block < kBlocks; ++block) {
        const auto* pair = pair_at(first.data(), block);
        torn += pair[0] - pair[1] > 1;
      }
      if (random() % 2 != 0) continue;
      if (!region_.release(one).status.is_ok()) ++unstable;
      engine_.give_frame_back(g);
      engine_.given(g) = FakeEngine::Given::nothing;
    }
  });
  const LaunchResult result = run_kernel(
      *engine_.device,
      [&] {
        for (std::uint64_t round = 0; round < rounds; ++round) {
          auto* const pair = pair_at(window_ + round % kGranules * granule_bytes(), blockIdx.x);
          pair[0] = pair[0] + 1;
          pair[1] = pair[1] + 1;
        }
      },
      kBlocks);
  done = true;
  taker.join();
  ASSERT_TRUE(result.completed());
  EXPECT_EQ(torn, 0u);
  EXPECT_EQ(unstable, 0u);
  for (std::uint64_t g = 0; g < kGranules; ++g) {
    for (std::uint64_t block = 0; block < kBlocks; ++block) {
      const auto* pair = pair_at(window_ + g * granule_bytes(), block);
      EXPECT_EQ(pair[0], rounds / kGranules + (g < rounds % kGranules));
      EXPECT_EQ(pair[1], pair[0]);
    }
  }
}

/// The host replaces half a granule, again and again, by ever higher numbers. Whoever has seen a number at
/// one end of it finds that number, or a higher one, at the other.
TEST_P(FaultingDevice, AWrittenCopyAppearsAsAWhole) {
  const std::uint64_t at = granule_bytes() / 4;
  const std::size_t count = granule_bytes() / 2 / sizeof(std::uint32_t);
  const auto rounds = test::scaled<std::uint32_t>(1000);
  auto* const words = reinterpret_cast<volatile std::uint32_t*>(window_ + at);
  const GranuleIndex g{0};
  std::memset(engine_.home.data(), 0, granule_bytes());
  engine_.give(granules(0, 1), false);

  std::atomic<unsigned> reading{0};
  std::atomic<bool> done{false};
  std::thread writer([&] {
    while (reading != 2) std::this_thread::yield();
    for (std::uint32_t n = 1; n <= rounds; ++n) {
      const std::vector<std::uint32_t> numbers(count, n);
      const FakeEngine::Locked locked(engine_, g);
      EXPECT_TRUE(region_.write_copy(g, ByteCount{at}, std::as_bytes(std::span(numbers))).is_ok());
    }
    done = true;
  });
  std::atomic<std::uint64_t> mixed{0};
  const auto compare = [&] {
    ++reading;
    while (!done) {
      const std::uint32_t first = words[0];
      mixed += words[count - 1] < first;
      const std::uint32_t last = words[count - 1];
      mixed += words[0] < last;
    }
  };
  const LaunchResult result = run_kernel(*engine_.device, compare, 2);
  writer.join();
  ASSERT_TRUE(result.completed());
  EXPECT_EQ(mixed, 0u);
  EXPECT_EQ(words[0], rounds);
}

TEST_P(FaultingDevice, RightsThatTheHardwareLostAreGivenBack) {
  engine_.give(all_, false);
  // Out of memory areas: rights are taken from all granules to make room for the change of one. With
  // userfaultfd there are no areas to run out of.
  os::sys::set_fault_plan({os::sys::Call::mprotect, 1, 1, ENOMEM});
  engine_.give(granules(2, 1), true);
  os::sys::clear_fault_plan();
  EXPECT_EQ(region_.over_protections(), GetParam().without_userfaultfd ? 1u : 0u);
  ASSERT_TRUE(touch_each_granule(false).completed());
  EXPECT_EQ(engine_.faults, GetParam().without_userfaultfd ? kGranules - 1 : 0u);
  std::vector<std::byte> seen(granule_bytes());
  ASSERT_TRUE(
      run_kernel(*engine_.device, [&] { std::memcpy(seen.data(), window_, seen.size()); }).completed());
  EXPECT_EQ(seen[17], FakeHome::pattern(17));
}

TEST_P(FaultingDevice, TwoDevicesAndTwoFilesStayApart) {
  FakeEngine other(GetParam(), kGranules * granule_bytes());
  std::memset(other.home.data(), 0x41, other.home.size());
  ASSERT_TRUE(touch_each_granule(true).completed());
  std::atomic<int> wrong{0};
  ASSERT_TRUE(
      run_kernel(*other.device, [&] { wrong += other.region->window()[5] != std::byte{0x41}; }).completed());
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(other.faults, 1u);
}

}  // namespace
}  // namespace aprime::device
