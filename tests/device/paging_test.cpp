#include "host/device/paging.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "host/device/demand_region.hpp"
#include "host/device/leased_frames.hpp"
#include "host/device/sanitizer_fibers.hpp"
#include "host/os/memory.hpp"
#include "tests/device/fake_engine.hpp"

// The host's side of faults in a kernel, without a device.

namespace aprime::device {
namespace {

class HostMemory : public PagingMemory {
 public:
  std::byte* shared(std::size_t bytes) override { return device(bytes); }
  std::byte* device(std::size_t bytes) override {
    return memory_.emplace_back(os::Mapped::anonymous(bytes, true)).data();
  }
  void free(std::byte*) noexcept override {}
  Status clear(std::byte*) noexcept override { return {}; }
  Status upload(std::byte* to, std::span<const std::byte> from) noexcept override {
    std::copy(from.begin(), from.end(), to);
    return {};
  }

 private:
  std::vector<os::Mapped> memory_;
};

/// Notes what is done to it, by its first letter.
class NotingRegion final : public PagedRegion {
 public:
  explicit NotingRegion(bool fails) : fails_(fails) {}
  void prepare_session() override {
    noted += 'p';
    if (fails_) throw Error(Errc::resources, "no memory for a page table");
  }
  void enter_session() noexcept override { noted += 'e'; }
  void cancel_session() noexcept override { noted += 'c'; }
  void leave_session() noexcept override { noted += 'l'; }
  Status serve(GranuleIndex, bool) noexcept override { return {}; }
  std::span<std::uint64_t> table() const noexcept override { return {}; }
  RegionId id() const noexcept override { return RegionId{0}; }

  std::string noted;

 private:
  const bool fails_;
};

/// A host thread that is at work on a region in a session waits for the pager, which there is not.
TEST(Paging, no_region_enters_a_session_that_there_will_not_be) {
  HostMemory memory;
  Paging paging(memory, nullptr, [](const detail::PagingPort*) { return Status{}; });
  NotingRegion good(false), bad(true), other(false);
  PagedRegion* const all[] = {&good, &bad, &other};
  EXPECT_THROW(paging.begin(all), Error);
  EXPECT_EQ(good.noted + " " + bad.noted + " " + other.noted, "pc p ");
  PagedRegion* const two[] = {&good, &other};
  good.noted.clear();
  paging.begin(two);
  paging.end(true);
  EXPECT_EQ(good.noted + " " + other.noted, "pel pel");
}

/// One granule in a session of a device that has failed: whatever it is asked is an error.
class SilentDevice : public testing::Test, public PagingSource, public FaultHandler {
 protected:
  SilentDevice() {
    const auto claim = pool_.claim(FrameCount{1}, {RegionId{3}, kGranule.first});
    region_.set_frame(kGranule.first, claim.frame);
  }
  Paging& paging() override { return paging_; }
  PagingMemory& paging_memory() noexcept override { return memory_; }
  Status on_device_fault(Region&, GranuleIndex, bool) noexcept override { return {}; }

  /// Returns when nothing more will be answered.
  void begin_session() {
    static_cast<void>(region_.paged_window());
    PagedRegion* const regions[] = {&region_.paged()};
    paging_.begin(regions);
    static_cast<void>(paging_.await(paging_.post({})));
  }

  static constexpr GranuleRange kGranule{GranuleIndex{0}, GranuleCount{1}};
  static constexpr ByteCount kFrame{4096};
  FramePool pool_{FrameCount{4}};
  LeasedFrames frames_{kFrame, FrameCount{4}};
  HostMemory memory_;
  Paging paging_{memory_, frames_.alias(), [](const detail::PagingPort*) {
                   return Status{Errc::device_failed, 0, {}, "silent"};
                 }};
  FakeHome home_{kFrame.value};
  DemandRegion region_{{RegionId{3}, GranuleSize::of(kFrame), FrameCount{1}, "x.f32", GranuleCount{1}},
                       frames_,
                       kFrame,
                       pool_,
                       *this,
                       *this};
};

/// Where thousands of threads wait for neighbours, most faults are such.
TEST_F(SilentDevice, is_not_asked_for_a_right_that_it_has) {
  ASSERT_TRUE(region_.fill(kGranule, home_).status.is_ok());
  begin_session();
  EXPECT_TRUE(region_.restore(kGranule, false).is_ok());
  EXPECT_EQ(region_.restore(kGranule, true).code, Errc::device_failed) << "to store it has none";
  paging_.end(true);
}

TEST_F(SilentDevice, is_asked_for_a_right_that_could_not_be_taken) {
  ASSERT_TRUE(region_.fill(kGranule, home_).status.is_ok());
  begin_session();
  EXPECT_EQ(region_.release(kGranule).status.code, Errc::device_failed);
  EXPECT_EQ(region_.restore(kGranule, false).code, Errc::device_failed);
  EXPECT_EQ(region_.restore(kGranule, false).code, Errc::device_failed) << "it may be taken yet";
  paging_.end(true);
}

/// Once all memory is there, leaves address space for the stacks of two more threads.
class ScarceMemory final : public HostMemory {
 public:
  static constexpr std::size_t kStackBytes = std::size_t{256} << 20;

  Status upload(std::byte*, std::span<const std::byte>) noexcept override {
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlimit limit{pages * 4096 + kStackBytes * 5 / 2, RLIM_INFINITY};
    ::setrlimit(RLIMIT_AS, &limit);
    return {};
  }
};

TEST(Paging, threads_that_cannot_be_started_are_an_error) {
  // A sanitizer has more addresses than any limit that would stop a thread.
  if (sanitizer::address || sanitizer::thread) return;
  const pid_t child = ::fork();
  if (child == 0) {
    // Larger than any stack that was left behind for use by the next thread.
    pthread_attr_t attributes;
    ::pthread_attr_init(&attributes);
    ::pthread_attr_setstacksize(&attributes, ScarceMemory::kStackBytes);
    ::pthread_setattr_default_np(&attributes);
    ScarceMemory memory;
    try {
      const Paging paging(memory, nullptr, [](const detail::PagingPort*) { return Status{}; });
      std::_Exit(1);
    } catch (const Error& error) {
      std::_Exit(error.code() == Errc::resources ? 0 : 2);
    }
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace aprime::device
