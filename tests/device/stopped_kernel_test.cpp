// What a kernel that is to end still has. On a GPU each of its threads goes on until it faults again, and
// nobody can stop one that has what it looks at; so the kernels here do not end when they should either.

#include <gtest/gtest.h>

#include <chrono>

#include "aprime/detail/page_access.hpp"
#include "tests/device/fake_engine.hpp"

namespace aprime::device {
namespace {

using detail::DeviceWord;
using detail::PageEntry;
using detail::SharedWord;

class StoppedKernel : public testing::Test {
 protected:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds kTimeMax{20};
  static constexpr GranuleIndex kRefused{0}, kLate{1}, kHad{2};

  StoppedKernel() { engine_.give({kHad, GranuleCount{1}}, false); }

  bool may_read(GranuleIndex g) const {
    return detail::is_usable(DeviceWord<std::uint64_t>(window_.entries[g.value]).load(detail::order::acquire),
                             false);
  }
  bool was_given(GranuleIndex g) {
    const FakeEngine::Locked locked(engine_, g);
    return engine_.given(g) != FakeEngine::Given::nothing;
  }
  /// Whether that comes about while there is time.
  template <class Is>
  static bool in_time(const Is& is) {
    const auto deadline = Clock::now() + kTimeMax;
    while (!is()) {
      if (Clock::now() > deadline) return false;
      __nanosleep(10000);
    }
    return true;
  }
  template <class Kernel>
  LaunchResult run(const Kernel& kernel) {
    const auto call = [](const void* closure, detail::ThreadCursor& cursor) {
      while (cursor.next()) (*static_cast<const Kernel*>(closure))();
    };
    Region* const regions[] = {engine_.region.get()};
    return engine_.device->run({&kernel, call, "kernel"}, Grid{{1}, {1}}, regions);
  }

  FakeEngine engine_{strict_personalities().front(), 3 * 4096};
  const detail::PagedWindow window_ = engine_.region->paged_window();
};

TEST_F(StoppedKernel, keeps_nothing_that_it_is_given_late) {
  std::atomic<bool> late{false};
  engine_.before_fault = [&](GranuleIndex g) {
    if (g == kRefused) return Status{Errc::io, EIO, ByteOffset{0}};
    late = true;
    const auto deadline = Clock::now() + kTimeMax;
    while (may_read(kHad) && Clock::now() < deadline) std::this_thread::yield();
    return Status{};
  };
  bool was_closed = false;
  const LaunchResult result = run([&] {
    detail::post_fault(window_, kLate.value, false);
    if (!in_time([&] { return late.load(); })) return;
    detail::post_fault(window_, kRefused.value, false);
    was_closed = in_time([&] { return was_given(kLate); }) && !may_read(kLate);
  });
  EXPECT_TRUE(was_closed);
  EXPECT_EQ(result.outcome, LaunchOutcome::fault);
  EXPECT_EQ(describe(*engine_.device, result).code, Errc::io);
}

/// One thread has ended there, and another waits for what it would have done.
TEST_F(StoppedKernel, is_one_of_which_a_thread_went_outside) {
  bool was_closed = false;
  const LaunchResult result = run([&] {
    detail::note_outside(window_, 5 * 4096, true);
    was_closed = in_time([&] { return !may_read(kHad); });
  });
  EXPECT_TRUE(was_closed);
  EXPECT_EQ(result.outcome, LaunchOutcome::fault);
  const DeviceFaultStatus status = describe(*engine_.device, result);
  EXPECT_EQ(status.offset.value, 5 * 4096U);
  EXPECT_NE(status.message.find("beyond the end of its span"), std::string::npos) << status.message;
}

}  // namespace
}  // namespace aprime::device
