// The contract of Device and Region, for every device there is without a GPU.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <limits>

#include "host/os/syscalls.hpp"
#include "tests/device/fake_engine.hpp"

namespace aprime::device {
namespace {

class RegionContract : public testing::TestWithParam<Personality> {
 protected:
  ~RegionContract() override { os::sys::clear_fault_plan(); }

  /// A file of four granules less 100 bytes.
  static constexpr std::uint64_t kGranules = 4;
  static constexpr std::uint64_t kShort = 100;

  std::uint64_t granule_bytes() const { return GetParam().granule; }
  std::uint64_t file_bytes() const { return kGranules * granule_bytes() - kShort; }
  FakeEngine engine_{GetParam(), file_bytes()};
  Region& region_ = *engine_.region;
  const GranuleRange all_ = granules(0, kGranules);

  /// Runs `work(device address of the run)` as a kernel that holds a lease.
  template <class Work>
  void as_kernel(GranuleRange run, Right right, const Work& work) {
    ASSERT_TRUE(engine_.device->open_lease(region_, run, right).is_ok());
    std::byte* const base = engine_.address(run.first);
    const LaunchResult result = run_kernel(*engine_.device, [&] { work(base); });
    engine_.device->close_lease(region_, run, right);
    ASSERT_TRUE(result.completed()) << describe(*engine_.device, result).message;
  }
  std::vector<std::byte> as_seen_by_kernel(GranuleRange run) {
    std::vector<std::byte> seen(run.count.value * granule_bytes());
    as_kernel(run, Right::read, [&](const std::byte* base) { std::memcpy(seen.data(), base, seen.size()); });
    return seen;
  }
  /// What home holds, with zeros beyond its end.
  std::vector<std::byte> in_home(GranuleRange run) {
    std::vector<std::byte> bytes(run.count.value * granule_bytes());
    EXPECT_TRUE(engine_.home.read(engine_.granule.offset_of(run.first), bytes).is_ok());
    return bytes;
  }
  /// A granule with these bytes was here once.
  void soil_frames() {
    engine_.take_frames(all_);
    ASSERT_TRUE(region_.adopt(all_).status.is_ok());
    as_kernel(all_, Right::write,
              [&](std::byte* base) { std::memset(base, 0xee, kGranules * granule_bytes()); });
    ASSERT_TRUE(region_.protect(all_).status.is_ok());
    ASSERT_TRUE(region_.release(all_).status.is_ok());
    for (std::uint64_t g = 0; g < kGranules; ++g) engine_.give_frame_back(GranuleIndex{g});
  }
  void fill_all() {
    engine_.take_frames(all_);
    const Progress p = region_.fill(all_, engine_.home);
    ASSERT_TRUE(p.status.is_ok());
    ASSERT_EQ(p.done, all_.count);
  }
};

INSTANTIATE_TEST_SUITE_P(Devices, RegionContract, testing::ValuesIn(all_personalities()),
                         [](const auto& instance) { return instance.param.name; });

TEST_P(RegionContract, FillShowsHomeWithZerosBeyondItsEnd) {
  soil_frames();
  fill_all();
  EXPECT_EQ(as_seen_by_kernel(all_), in_home(all_));
  EXPECT_EQ(engine_.faults, 0u);
}

TEST_P(RegionContract, FillUsesTheAliasAsFarAsItGoes) {
  soil_frames();
  engine_.home.alias_bytes =
      static_cast<std::size_t>(2 * granule_bytes() + 4096) % (kGranules * granule_bytes());
  fill_all();
  EXPECT_EQ(as_seen_by_kernel(all_), in_home(all_));
}

TEST_P(RegionContract, FillStopsAtTheGranuleThatCannotBeRead) {
  engine_.take_frames(all_);
  engine_.home.fail_reads_from = 2 * granule_bytes() + 10;
  const Progress p = region_.fill(all_, engine_.home);
  EXPECT_EQ(p.done, GranuleCount{2});
  EXPECT_EQ(p.status.code, Errc::io);
  EXPECT_EQ(p.status.system_error, EIO);
  EXPECT_EQ(as_seen_by_kernel(granules(0, 2)), in_home(granules(0, 2)));
  engine_.home.fail_reads_from = ~std::uint64_t{0};
  EXPECT_EQ(region_.fill(granules(2, 2), engine_.home).done, GranuleCount{2})
      << "the rest had no right and no bytes";
  EXPECT_EQ(as_seen_by_kernel(all_), in_home(all_));
}

TEST_P(RegionContract, AdoptGivesZeros) {
  soil_frames();
  engine_.take_frames(all_);
  ASSERT_EQ(region_.adopt(all_).done, all_.count);
  EXPECT_TRUE(all_are(std::byte{0}, as_seen_by_kernel(all_)));
}

TEST_P(RegionContract, StoresReachHomeAndNothingBeyondItsEnd) {
  fill_all();
  ASSERT_EQ(region_.grant_write(all_).done, all_.count);
  as_kernel(all_, Right::read_write,
            [&](std::byte* base) { std::memset(base, 0x5a, kGranules * granule_bytes()); });
  ASSERT_EQ(region_.protect(all_).done, all_.count);
  ASSERT_EQ(region_.copy_home(all_, engine_.home).done, all_.count);
  EXPECT_TRUE(all_are(std::byte{0x5a}, std::span(engine_.home.data(), file_bytes())));
  EXPECT_TRUE(all_are(std::byte{0}, std::span(engine_.home.data() + file_bytes(), kShort)));
  EXPECT_EQ(as_seen_by_kernel(granules(0, 1))[0], std::byte{0x5a}) << "the copy stays, to be read";
}

TEST_P(RegionContract, CopyHomeStopsAtTheGranuleThatCannotBeWritten) {
  engine_.take_frames(all_);
  ASSERT_TRUE(region_.adopt(all_).status.is_ok());
  ASSERT_TRUE(region_.protect(all_).status.is_ok());
  engine_.home.fail_writes_from = 3 * granule_bytes() - 1;
  const Progress p = region_.copy_home(all_, engine_.home);
  EXPECT_EQ(p.done, GranuleCount{2});
  EXPECT_EQ(p.status.code, Errc::no_space);
  EXPECT_EQ(p.status.system_error, ENOSPC);
}

TEST_P(RegionContract, ReleaseForgetsTheBytes) {
  fill_all();
  ASSERT_EQ(region_.release(all_).done, all_.count);
  std::memset(engine_.home.data(), 0x33, file_bytes());
  ASSERT_TRUE(region_.fill(all_, engine_.home).status.is_ok());
  EXPECT_EQ(as_seen_by_kernel(all_), in_home(all_));
}

TEST_P(RegionContract, RightsAreTakenFromTheGranulesNamedOnly) {
  fill_all();
  ASSERT_TRUE(region_.grant_write(all_).status.is_ok());
  ASSERT_TRUE(region_.release(granules(1, 1)).status.is_ok());
  ASSERT_TRUE(region_.protect(granules(2, 1)).status.is_ok());
  for (const std::uint64_t g : {0u, 3u}) {
    as_kernel(granules(g, 1), Right::read_write, [&](std::byte* base) { base[7] = std::byte{0xaa}; });
  }
  EXPECT_EQ(as_seen_by_kernel(granules(2, 1)), in_home(granules(2, 1)));
  EXPECT_EQ(engine_.faults, 0u);
}

TEST_P(RegionContract, CopiesAreReadAndWrittenInPart) {
  fill_all();
  const GranuleIndex g{1};
  // Across a page boundary where a granule has one.
  const std::uint64_t at = granule_bytes() > 4096 ? 4090 : 100;
  std::array<std::byte, 20> bytes{};
  ASSERT_TRUE(region_.read_copy(g, ByteCount{at}, bytes).is_ok());
  EXPECT_EQ(bytes[19], FakeHome::pattern(granule_bytes() + at + 19));

  std::vector<std::byte> expected = in_home(granules(0, 3));
  bytes.fill(std::byte{0x77});
  std::copy(bytes.begin(), bytes.end(), expected.begin() + static_cast<std::ptrdiff_t>(granule_bytes() + at));
  ASSERT_TRUE(region_.write_copy(g, ByteCount{at}, bytes).is_ok());
  EXPECT_EQ(as_seen_by_kernel(granules(0, 3)), expected);
  EXPECT_EQ(engine_.faults, 0u);
}

TEST_P(RegionContract, AWholeCopyIsReplaced) {
  fill_all();
  const std::vector<std::byte> bytes(granule_bytes(), std::byte{0x11});
  ASSERT_TRUE(region_.write_copy(GranuleIndex{2}, ByteCount{0}, bytes).is_ok());
  EXPECT_EQ(as_seen_by_kernel(granules(2, 1)), bytes);
  ASSERT_TRUE(region_.write_copy(GranuleIndex{2}, ByteCount{9}, {}).is_ok());
  ASSERT_TRUE(region_.read_copy(GranuleIndex{2}, ByteCount{9}, {}).is_ok());
  EXPECT_EQ(as_seen_by_kernel(granules(2, 1)), bytes);
}

TEST_P(RegionContract, ARegionGrowsInPlace) {
  fill_all();
  std::byte* const window = region_.window();
  const std::uint64_t many = (std::uint64_t{512} << 20) / granule_bytes();
  ASSERT_TRUE(region_.reserve(GranuleCount{many}).is_ok());
  EXPECT_EQ(region_.window(), window);
  const GranuleRange last = granules(many - 1, 1);
  engine_.take_frames(last);
  ASSERT_EQ(region_.adopt(last).done, last.count);
  EXPECT_TRUE(all_are(std::byte{0}, as_seen_by_kernel(last)));
  EXPECT_EQ(as_seen_by_kernel(all_), in_home(all_));
}

TEST_P(RegionContract, AddressSpaceRunsOutWithAStatus) {
  EXPECT_EQ(region_.reserve(GranuleCount{std::uint64_t{1} << 50}).code, Errc::resources);
  fill_all();
  EXPECT_EQ(as_seen_by_kernel(all_), in_home(all_));
}

TEST_P(RegionContract, ADeviceNeedsSixteenFrames) {
  EXPECT_EQ(GetParam().make(16)->info().memory, ByteCount{16 * GetParam().frame});
  try {
    GetParam().make(15);
    FAIL() << "15 frames are too few";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Errc::invalid_argument);
    EXPECT_THAT(error.what(), testing::HasSubstr(std::to_string(16 * GetParam().frame)));
  }
}

TEST_P(RegionContract, AFrameIsAPowerOfTwo) {
  Personality odd = GetParam();
  odd.frame = 5000;
  EXPECT_THROW(odd.make(), Error);
}

TEST_P(RegionContract, ADeviceSaysWhatItIs) {
  const DeviceInfo& info = engine_.device->info();
  EXPECT_EQ(info.name, GetParam().strict ? "emulated-strict" : "emulated");
  EXPECT_EQ(info.hardware_paged, !GetParam().strict);
  EXPECT_EQ(info.workers, 2u);
  EXPECT_EQ(region_.window() != nullptr, info.hardware_paged);
  EXPECT_EQ(engine_.device->frame_address(FrameIndex{0}) == nullptr, info.hardware_paged);
  if (GetParam().without_userfaultfd) {
    EXPECT_THAT(info.description, testing::HasSubstr("userfaultfd is not used: the options ask"));
  }
}

TEST_P(RegionContract, AKernelThatTouchesNobodysMemoryIsStopped) {
  const os::Mapped nobodys = os::Mapped::anonymous(4096);
  ASSERT_EQ(os::sys::mprotect(nobodys.data(), 4096, PROT_NONE), 0);
  auto* const wild = reinterpret_cast<volatile int*>(nobodys.data() + 16);
  const LaunchResult result = run_kernel(*engine_.device, [&] { *wild = 1; });
  ASSERT_EQ(result.outcome, LaunchOutcome::fault);
  const DeviceFaultStatus status = describe(*engine_.device, result);
  EXPECT_EQ(status.code, Errc::kernel_failed);
  EXPECT_TRUE(status.was_write);
  char expected[100];
  std::snprintf(expected, sizeof expected, "kernel saxpy stored to address 0x%zx, which is no device memory",
                reinterpret_cast<std::size_t>(wild));
  EXPECT_EQ(status.message, expected);
  EXPECT_TRUE(run_kernel(*engine_.device, [] {}).completed()) << "the device is as good as new";
}

/// A sanitizer would say so first, and end the process.
__attribute__((no_sanitize("undefined"), noinline)) int divide(volatile int& dividend,
                                                               volatile int& divisor) {
  return dividend / divisor;
}

TEST_P(RegionContract, AKernelThatDividesByZeroIsStopped) {
  volatile int zero = 0;
  volatile int least = std::numeric_limits<int>::min();
  volatile int minus_one = -1;
  for (volatile int* const divisor : {&zero, &minus_one}) {
    const LaunchResult result = run_kernel(*engine_.device, [&] { least = divide(least, *divisor); });
    ASSERT_EQ(result.outcome, LaunchOutcome::fault);
    const DeviceFaultStatus status = describe(*engine_.device, result);
    EXPECT_EQ(status.code, Errc::kernel_failed);
    EXPECT_EQ(status.message, "kernel saxpy divided by zero, or the smallest integer by -1");
  }
  EXPECT_TRUE(run_kernel(*engine_.device, [] {}).completed()) << "the device is as good as new";
}

#ifndef __SANITIZE_THREAD__  // which leaves no stack for the handler (Executor)
/// Calls itself as deep as asked, each call with so much stack.
template <std::size_t bytes>
[[gnu::noinline]] int use_stack(int depth) {
  volatile char frame[bytes];
  frame[0] = static_cast<char>(depth);
  return depth == 0 ? frame[0] : use_stack<bytes>(depth - 1) + frame[0];
}

TEST_P(RegionContract, AKernelThatUsesUpItsStackIsStopped) {
  const std::array<int (*)(int), 3> users{&use_stack<64>, &use_stack<4096>, &use_stack<(300 << 10)>};
  volatile int depth = 1 << 20;
  for (const auto use : users) {
    std::atomic<unsigned> after{0};
    const LaunchResult result = run_kernel(*engine_.device, [&] {
      use(depth);
      ++after;
    });
    ASSERT_EQ(result.outcome, LaunchOutcome::fault);
    const DeviceFaultStatus status = describe(*engine_.device, result);
    EXPECT_EQ(status.code, Errc::kernel_failed);
    EXPECT_EQ(status.message, "kernel saxpy used more than 512 KiB of stack");
    EXPECT_EQ(after, 0U);
    EXPECT_TRUE(run_kernel(*engine_.device, [] {}).completed()) << "the device is as good as new";
  }
}
#endif

TEST_P(RegionContract, AChildOfForkHasNoDeviceMemory) {
  constexpr int kSurvived = 42;
  fill_all();
  const std::byte* const touched = engine_.address(GranuleIndex{0});
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    // What a sanitizer has to say about it is not wanted.
    ::close(STDERR_FILENO);
    ::alarm(20);
    load_from(touched);
    ::_exit(kSurvived);
  }
  int how = 0;
  ASSERT_EQ(::waitpid(child, &how, 0), child);
  const bool crashed = WIFSIGNALED(how) && WTERMSIG(how) == SIGSEGV;
  const bool crashed_in_a_sanitizer =
      WIFEXITED(how) && WEXITSTATUS(how) != 0 && WEXITSTATUS(how) != kSurvived;
  EXPECT_TRUE(crashed || crashed_in_a_sanitizer) << how;
  EXPECT_EQ(as_seen_by_kernel(all_), in_home(all_)) << "the parent is not concerned";
}

/// Every system call that an operation makes may fail, at any time: nothing is lost, and the next try
/// succeeds.
TEST_P(RegionContract, SystemCallsMayFail) {
  using os::sys::Call;
  std::uint64_t injected = 0;
  for (const Call call : {Call::mprotect, Call::madvise, Call::ioctl, Call::fallocate}) {
    for (std::uint64_t nth = 1; nth <= 8; ++nth) {
      SCOPED_TRACE(testing::Message() << os::sys::name_of(call) << " fails the " << nth << "th time");
      FakeEngine engine(GetParam(), file_bytes());
      Region& region = *engine.region;
      engine.take_frames(all_);
      os::sys::set_fault_plan({call, nth, 2, ENOMEM});
      const auto insist = [&](const auto& operation) {
        GranuleCount done{0};
        for (int tries = 0; done < all_.count; ++tries) {
          ASSERT_LT(tries, 8);
          const Progress p =
              operation(GranuleRange{GranuleIndex{done.value}, GranuleCount{all_.count.value - done.value}});
          done.value += p.done.value;
          ASSERT_EQ(p.status.is_ok(), done == all_.count);
          ASSERT_THAT(p.status.code, testing::AnyOf(Errc::ok, Errc::resources));
        }
      };
      insist([&](GranuleRange r) { return region.fill(r, engine.home); });
      insist([&](GranuleRange r) { return region.grant_write(r); });
      insist([&](GranuleRange r) { return region.protect(r); });
      const std::array<std::byte, 4> bytes{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
      std::array<std::byte, 4> copy{};
      while (!region.write_copy(GranuleIndex{1}, ByteCount{8}, bytes).is_ok()) {
        ASSERT_TRUE(region.read_copy(GranuleIndex{1}, ByteCount{8}, copy).is_ok());
        EXPECT_EQ(copy[3], FakeHome::pattern(granule_bytes() + 11)) << "a failure changes nothing";
      }
      ASSERT_TRUE(region.read_copy(GranuleIndex{1}, ByteCount{8}, copy).is_ok());
      EXPECT_EQ(copy, bytes);
      insist([&](GranuleRange r) { return region.release(r); });
      insist([&](GranuleRange r) { return region.adopt(r); });
      insist([&](GranuleRange r) { return region.protect(r); });
      insist([&](GranuleRange r) { return region.copy_home(r, engine.home); });
      os::sys::clear_fault_plan();
      injected += os::sys::faults_injected();
      EXPECT_TRUE(all_are(std::byte{0}, std::span(engine.home.data(), file_bytes())));
    }
  }
  EXPECT_EQ(injected == 0, GetParam().strict) << "rights move without system calls there, and only there";
}

TEST_P(RegionContract, ADeviceOrRegionThatCannotBeMadeSaysWhy) {
  using os::sys::Call;
  for (const Call call : {Call::mmap, Call::madvise, Call::memfd_create, Call::ftruncate}) {
    for (std::uint64_t nth = 1; nth <= 8; ++nth) {
      os::sys::set_fault_plan({call, nth, 1, ENOMEM});
      try {
        FakeEngine engine(GetParam(), file_bytes());
        os::sys::clear_fault_plan();
        engine.give(all_, true);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Errc::resources)
            << os::sys::name_of(call) << ' ' << nth << ": " << error.what();
      }
      os::sys::clear_fault_plan();
    }
  }
}

}  // namespace
}  // namespace aprime::device
