// While no kernel runs, taking the right to store from a device costs nothing; it is taken before the next
// one may store.

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <random>
#include <thread>

#include "host/os/syscalls.hpp"
#include "tests/device/fake_engine.hpp"
#include "tests/test_scale.hpp"

namespace aprime::device {
namespace {

using os::sys::Call;

class BetweenKernels : public testing::TestWithParam<Personality> {
 protected:
  BetweenKernels() {
    engine_.give(all_, true);
    store_to_all();
  }
  ~BetweenKernels() override { os::sys::clear_fault_plan(); }

  static constexpr std::uint64_t kGranules = 70;  // more than the bits of a word
  std::byte* first_byte_of(std::uint64_t g) const { return region_.window() + g * GetParam().granule; }
  /// A kernel stores to each granule. Returns how many faults that took.
  std::uint64_t store_to_all() {
    const std::uint64_t before = engine_.faults;
    const LaunchResult result = run_kernel(*engine_.device, [&] {
      for (std::uint64_t g = 0; g < kGranules; ++g) store_to(first_byte_of(g));
    });
    EXPECT_TRUE(result.completed());
    return engine_.faults - before;
  }
  void protect(GranuleRange run) {
    ASSERT_EQ(region_.protect(run).done, run.count);
    for (GranuleIndex g = run.first; g < run.end(); ++g.value) engine_.given(g) = FakeEngine::Given::read;
  }
  /// System calls that change rights, made by `work`.
  template <class Work>
  std::uint64_t calls_made_by(const Work& work) {
    os::sys::set_fault_plan({});
    work();
    os::sys::clear_fault_plan();
    return os::sys::calls_made(Call::ioctl) + os::sys::calls_made(Call::mprotect);
  }

  FakeEngine engine_{GetParam(), kGranules* GetParam().granule, 4 * kGranules};
  Region& region_ = *engine_.region;
  const GranuleRange all_ = granules(0, kGranules);
};

INSTANTIATE_TEST_SUITE_P(Devices, BetweenKernels, testing::ValuesIn(faulting_personalities()),
                         [](const auto& instance) { return instance.param.name; });

TEST_P(BetweenKernels, a_right_is_taken_without_a_system_call_and_a_later_kernel_faults) {
  EXPECT_EQ(calls_made_by([&] {
              protect(granules(0, 3));
              protect(granules(60, 8));
              protect(granules(5, 1));
            }),
            0u);
  EXPECT_EQ(calls_made_by([&] { ASSERT_TRUE(run_kernel(*engine_.device, [] {}).completed()); }), 3u)
      << "neighbours in one go";
  EXPECT_EQ(store_to_all(), 12u);
  EXPECT_EQ(store_to_all(), 0u);
}

TEST_P(BetweenKernels, a_right_that_is_given_back_meanwhile_was_never_taken) {
  EXPECT_EQ(calls_made_by([&] {
              protect(all_);
              engine_.give(all_, true);
            }),
            0u);
  EXPECT_EQ(store_to_all(), 0u);
}

TEST_P(BetweenKernels, rights_of_a_part_are_given_back) {
  protect(granules(10, 20));
  engine_.give(granules(15, 5), true);
  engine_.give(granules(25, 30), true);
  EXPECT_EQ(store_to_all(), 10u);
}

TEST_P(BetweenKernels, a_copy_that_is_gone_meanwhile_is_not_looked_at_again) {
  protect(all_);
  ASSERT_EQ(region_.release(all_).done, all_.count);
  EXPECT_EQ(calls_made_by([&] { ASSERT_TRUE(run_kernel(*engine_.device, [] {}).completed()); }), 0u);
  for (std::uint64_t g = 0; g < kGranules; ++g) {
    engine_.give_frame_back(GranuleIndex{g});
    engine_.given(GranuleIndex{g}) = FakeEngine::Given::nothing;
  }
  engine_.give(all_, true);
  EXPECT_EQ(store_to_all(), 0u);
}

TEST_P(BetweenKernels, a_task_counts_as_a_kernel) {
  class Store final : public detail::LaunchClosure {
   public:
    explicit Store(std::byte* at) : at_(at) {}
    void bind(std::span<const detail::LeasedMemory>) override {}
    detail::KernelBody body() const noexcept override { return {}; }
    detail::CudaTask task() const noexcept override { return {}; }
    void run_task() override { store_to(at_); }

   private:
    std::byte* const at_;
  };
  protect(all_);
  Store store(first_byte_of(1));
  engine_.device->run_task(store, "store");
  EXPECT_EQ(engine_.faults, 1u);
}

TEST_P(BetweenKernels, no_kernel_begins_while_a_right_cannot_be_taken) {
  protect(granules(0, 3));
  protect(granules(60, 8));
  os::sys::set_fault_plan({Call::ioctl, 1, 0, ENOMEM});
  if (GetParam().without_userfaultfd) {
    EXPECT_TRUE(run_kernel(*engine_.device, [] {}).completed());
  } else {
    try {
      static_cast<void>(run_kernel(*engine_.device, [&] { store_to(first_byte_of(0)); }));
      ADD_FAILURE() << "a kernel ran with rights that it had no more";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::resources);
      EXPECT_EQ(error.system_error(), ENOMEM);
    }
  }
  os::sys::clear_fault_plan();
  EXPECT_EQ(store_to_all(), 11u);
}

/// As NoStoreIsLostAndNoCopyIsTorn, but the kernels are short, and copies are taken while one begins or ends.
TEST_P(BetweenKernels, no_store_is_lost_around_the_begin_of_a_kernel) {
  const auto launches = test::scaled<std::uint64_t>(2000);
  const auto count_at = [](std::byte* granule) {
    return reinterpret_cast<volatile std::uint64_t*>(granule + 64);
  };
  for (std::uint64_t g = 0; g < kGranules; ++g) *count_at(first_byte_of(g)) = 0;
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> unstable{0};
  std::thread taker([&] {
    std::mt19937_64 random(7);
    std::vector<std::byte> copy(GetParam().granule);
    while (!done) {
      const GranuleIndex g{random() % 3};
      const FakeEngine::Locked locked(engine_, g);
      if (engine_.given(g) != FakeEngine::Given::write) continue;
      const GranuleRange one{g, GranuleCount{1}};
      bool good = region_.protect(one).status.is_ok() && region_.copy_home(one, engine_.home).status.is_ok();
      engine_.given(g) = FakeEngine::Given::read;
      std::this_thread::yield();
      good = good && region_.read_copy(g, ByteCount{0}, copy).is_ok();
      unstable +=
          !good || std::memcmp(copy.data(), engine_.home.data() + g.value * copy.size(), copy.size()) != 0;
      if (random() % 2 != 0 || !region_.release(one).status.is_ok()) continue;
      engine_.give_frame_back(g);
      engine_.given(g) = FakeEngine::Given::nothing;
    }
  });
  for (std::uint64_t n = 0; n < launches; ++n) {
    const LaunchResult result = run_kernel(*engine_.device, [&] {
      auto* const count = count_at(first_byte_of(n % 3));
      *count = *count + 1;
    });
    ASSERT_TRUE(result.completed());
  }
  done = true;
  taker.join();
  EXPECT_EQ(unstable, 0u);
  std::uint64_t sum = 0;
  for (std::uint64_t g = 0; g < 3; ++g) sum += *count_at(first_byte_of(g));
  EXPECT_EQ(sum, launches);
}

/// A right that is about to be taken for good, and one that is taken with the bytes, by two threads.
TEST_P(BetweenKernels, nobody_reads_a_copy_that_is_gone) {
  const auto launches = test::scaled<std::uint64_t>(3000);
  std::atomic<bool> done{false};
  std::thread taker([&] {
    while (!done)
      for (std::uint64_t n = 0; n < 8; ++n) {
        const GranuleIndex g{n};
        engine_.give({g, GranuleCount{1}}, true);
        const FakeEngine::Locked locked(engine_, g);
        if (engine_.given(g) != FakeEngine::Given::write) continue;
        EXPECT_TRUE(region_.protect({g, GranuleCount{1}}).status.is_ok());
        engine_.given(g) = FakeEngine::Given::read;
        if (n % 2 == 0) {
          const std::byte byte = FakeHome::pattern(n);
          EXPECT_TRUE(region_.write_copy(g, ByteCount{GetParam().granule - 1}, {&byte, 1}).is_ok());
        }
        EXPECT_TRUE(region_.release({g, GranuleCount{1}}).status.is_ok());
        engine_.give_frame_back(g);
        engine_.given(g) = FakeEngine::Given::nothing;
      }
  });
  std::atomic<std::uint64_t> wrong{0};
  for (std::uint64_t i = 0; i < launches; ++i) {
    const LaunchResult result = run_kernel(*engine_.device, [&] {
      for (std::uint64_t g = 0; g < 8; ++g)
        wrong += first_byte_of(g)[100] != FakeHome::pattern(g * GetParam().granule + 100);
    });
    ASSERT_TRUE(result.completed());
  }
  done = true;
  taker.join();
  EXPECT_EQ(wrong, 0u);
}

}  // namespace
}  // namespace aprime::device
