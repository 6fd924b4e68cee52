#include "host/os/protected_range.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fstream>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "host/os/file.hpp"
#include "host/os/syscalls.hpp"
#include "tests/os/memory_areas.hpp"
#include "tests/os/temporary_file.hpp"
#include "tests/test_scale.hpp"

namespace aprime::os {
namespace {

int native(Protection p) {
  return p == Protection::none ? PROT_NONE : p == Protection::read ? PROT_READ : PROT_READ | PROT_WRITE;
}

std::uint64_t max_map_count() {
  std::uint64_t n = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> n;
  return n;
}

/// What the library takes for it here: no more than the usual limit, so that ranges that reach it are small
/// and quickly filled wherever the tests run.
std::uint64_t known_limit() { return std::min(max_map_count(), kMemoryAreasUsual); }

class ProtectedRangeTest : public testing::Test {
 protected:
  ~ProtectedRangeTest() override { sys::clear_fault_plan(); }

  /// The library asks once, for the first range of the process; without an answer it assumes the usual limit.
  static void SetUpTestSuite() {
    if (max_map_count() <= kMemoryAreasUsual) return;
    sys::set_fault_plan({.call = sys::Call::open, .nth = 1, .times = 1, .error = EACCES});
    const ProtectedRange first(Mapped::anonymous(kPageBytes), ByteCount{kPageBytes}, Protection::none,
                               Protection::none);
    sys::clear_fault_plan();
  }

  /// A range over a sparse file, all of it with all rights, and a model of what it may give.
  void make(std::size_t granules, Protection ceiling = Protection::read_write,
            std::size_t granule = kPageBytes) {
    granule_ = granule;
    model_.assign(granules, ceiling);
    File file = File::open(directory_.sparse("f", granules * granule), Access::read_write);
    const Access access = ceiling == Protection::read_write ? Access::read_write : Access::read;
    Mapped memory = file.map_shared({ByteOffset{0}, ByteCount{granules * granule}}, access);
    range_ = std::make_unique<ProtectedRange>(std::move(memory), ByteCount{granule}, ceiling, ceiling);
  }
  Status set(std::size_t first, std::size_t count, Protection p) {
    std::fill_n(model_.begin() + static_cast<std::ptrdiff_t>(first), count, p);
    return range_->set(GranuleIndex{first}, GranuleCount{count}, p);
  }
  std::vector<test::MemoryArea> areas() const { return test::memory_areas(range_->data(), range_->size()); }

  /// The kernel gives exactly what was set, or nothing where rights may have been taken; and it has as many
  /// areas as the range believes.
  void expect_kernel_agrees() const {
    const auto found = areas();
    EXPECT_EQ(found.size(), range_->areas());
    const auto base = reinterpret_cast<std::uintptr_t>(range_->data());
    std::size_t differing = 0;
    for (const auto& area : found) {
      for (std::size_t g = (area.begin - base) / granule_; g * granule_ < area.end - base; ++g) {
        const bool is_as_set = area.protection == native(model_[g]);
        const bool is_taken = area.protection == PROT_NONE && range_->over_protections() > 0;
        if (!is_as_set && !is_taken) ++differing;
      }
    }
    EXPECT_EQ(differing, 0u);
  }

  test::TemporaryDirectory directory_;
  std::size_t granule_ = kPageBytes;
  std::unique_ptr<ProtectedRange> range_;
  std::vector<Protection> model_;
};

TEST_F(ProtectedRangeTest, GivesEveryGranuleItsOwnProtection) {
  make(64);
  ASSERT_TRUE(set(3, 1, Protection::none).is_ok());
  ASSERT_TRUE(set(10, 20, Protection::read).is_ok());
  ASSERT_TRUE(set(63, 1, Protection::none).is_ok());
  ASSERT_TRUE(set(0, 1, Protection::read).is_ok());
  expect_kernel_agrees();
  EXPECT_EQ(range_->areas(), 7u);
  ASSERT_TRUE(set(0, 64, Protection::none).is_ok());
  EXPECT_EQ(range_->areas(), 1u);
  expect_kernel_agrees();
  EXPECT_EQ(range_->over_protections(), 0u);
}

TEST_F(ProtectedRangeTest, NeverGrantsMoreThanTheCeiling) {
  make(8, Protection::read);
  ASSERT_TRUE(set(2, 2, Protection::none).is_ok());
  ASSERT_TRUE(range_->set(GranuleIndex{2}, GranuleCount{2}, Protection::read_write).is_ok());
  for (const auto& area : areas()) EXPECT_EQ(area.protection, PROT_READ);
  EXPECT_EQ(range_->areas(), 1u);
}

TEST_F(ProtectedRangeTest, WhatAGranuleHasAlreadyCostsNoSystemCall) {
  make(100);
  sys::set_fault_plan({});
  ASSERT_TRUE(set(0, 100, Protection::read_write).is_ok());
  ASSERT_TRUE(set(50, 0, Protection::none).is_ok());
  EXPECT_EQ(sys::calls_made(sys::Call::mprotect), 0u);
  ASSERT_TRUE(set(0, 70, Protection::read).is_ok());
  ASSERT_TRUE(set(0, 70, Protection::read).is_ok());
  ASSERT_TRUE(set(33, 5, Protection::read).is_ok());
  EXPECT_EQ(sys::calls_made(sys::Call::mprotect), 1u);
}

TEST_F(ProtectedRangeTest, TheLastGranuleMayBePartial) {
  File file = File::open(directory_.sparse("f", 3 * kPageBytes), Access::read_write);
  ProtectedRange range(file.map_shared({ByteOffset{0}, ByteCount{3 * kPageBytes}}, Access::read_write),
                       ByteCount{2 * kPageBytes}, Protection::read_write, Protection::read_write);
  ASSERT_TRUE(range.set(GranuleIndex{1}, GranuleCount{1}, Protection::none).is_ok());
  const auto found = test::memory_areas(range.data(), range.size());
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].end - found[0].begin, 2 * kPageBytes);
  EXPECT_EQ(found[1].protection, PROT_NONE);
}

TEST_F(ProtectedRangeTest, RandomChangesLeaveTheKernelAndTheRecordInAgreement) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  make(700, Protection::read_write, 2 * kPageBytes);
  for (int i = 0; i < 40; ++i) {
    for (int k = 0; k < 50; ++k) {
      const std::size_t first = random() % 700;
      const std::size_t longest = std::min<std::size_t>(700 - first, random() % 4 == 0 ? 200 : 3);
      ASSERT_TRUE(set(first, 1 + random() % longest, static_cast<Protection>(random() % 3)).is_ok());
    }
    expect_kernel_agrees();
    if (HasFailure()) return;
  }
  EXPECT_EQ(range_->over_protections(), 0u);
}

TEST_F(ProtectedRangeTest, AQuarterMillionScatteredRightsNeverFailAndLeaveAreasForOthers) {
  constexpr std::size_t kGranules = 262'144;  // 1 GiB
  make(kGranules);
  const std::uint64_t limit = known_limit();
  for (std::size_t g = 0; g < kGranules; g += 2) ASSERT_TRUE(set(g, 1, Protection::none).is_ok()) << g;
  EXPECT_LE(range_->areas(), limit / 2 + 2);
  EXPECT_GT(range_->areas(), limit / 4) << "gives up more rights than it has to";
  EXPECT_GT(range_->over_protections(), 0u);
  expect_kernel_agrees();
  std::vector<std::thread> threads;
  std::atomic<int> ran{0};
  for (int i = 0; i < 64; ++i) threads.emplace_back([&] { ran.fetch_add(1); });
  for (auto& t : threads) t.join();
  EXPECT_EQ(ran.load(), 64);
  std::vector<Mapped> others;
  for (int i = 0; i < 1000; ++i) {
    others.push_back(Mapped::anonymous(kPageBytes));
    ASSERT_EQ(::mprotect(others.back().data(), kPageBytes, i % 2 != 0 ? PROT_READ : PROT_NONE), 0);
  }
  // And the other half: rights are granted as well as taken.
  for (std::size_t g = 1; g < kGranules; g += 2) ASSERT_TRUE(set(g, 1, Protection::read).is_ok()) << g;
  expect_kernel_agrees();
}

TEST_F(ProtectedRangeTest, ASecondRangeGetsItsPartOfTheAreas) {
  constexpr std::size_t kGranules = 131'072;
  make(kGranules);
  for (std::size_t g = 0; g < kGranules; g += 2) ASSERT_TRUE(set(g, 1, Protection::none).is_ok());
  ProtectedRange second(Mapped::anonymous(kGranules * kPageBytes), ByteCount{kPageBytes},
                        Protection::read_write, Protection::read_write);
  for (std::size_t g = 0; g < kGranules; g += 2) {
    ASSERT_TRUE(second.set(GranuleIndex{g}, GranuleCount{1}, Protection::none).is_ok());
  }
  EXPECT_GT(second.areas(), known_limit() / 8);
  EXPECT_LE(second.areas() + range_->areas(), known_limit() * 7 / 8);
}

TEST_F(ProtectedRangeTest, ARefusedChangeTakesRightsElsewhereAndSucceeds) {
  make(4096);
  for (std::size_t g = 0; g < 4096; g += 2) ASSERT_TRUE(set(g, 1, Protection::none).is_ok());
  for (const std::uint64_t times : {1u, 2u, 3u, 5u}) {
    sys::set_fault_plan({.call = sys::Call::mprotect, .nth = 1, .times = times, .error = ENOMEM});
    ASSERT_TRUE(set(1001, 1, Protection::read).is_ok());
    EXPECT_EQ(sys::faults_injected(), times);
    sys::clear_fault_plan();
    const auto place = test::memory_areas(range_->data() + 1001 * kPageBytes, kPageBytes);
    ASSERT_EQ(place.size(), 1u);
    EXPECT_EQ(place[0].protection, PROT_READ);
    expect_kernel_agrees();
    ASSERT_TRUE(set(1001, 1, Protection::read_write).is_ok());
    for (std::size_t g = 1; g < 4096; g += 2) ASSERT_TRUE(set(g, 1, Protection::read_write).is_ok());
  }
  EXPECT_GT(range_->over_protections(), 0u);
}

TEST_F(ProtectedRangeTest, WhatIsHeldKeepsItsRightsWhenOthersAreTaken) {
  make(4096);
  for (std::size_t g = 0; g < 4096; g += 2) ASSERT_TRUE(set(g, 1, Protection::read).is_ok());
  // In no order, one within another, and two of the same.
  std::vector<ProtectedRange::Held> held{{{GranuleIndex{3000}, GranuleCount{1}}},
                                         {{GranuleIndex{100}, GranuleCount{500}}},
                                         {{GranuleIndex{4095}, GranuleCount{1}}},
                                         {{GranuleIndex{200}, GranuleCount{7}}},
                                         {{GranuleIndex{100}, GranuleCount{500}}}};
  for (auto& h : held) range_->hold(h);
  const auto differing = [&](std::size_t first, std::size_t count) {
    std::size_t n = 0;
    for (const auto& area : test::memory_areas(range_->data() + first * kPageBytes, count * kPageBytes))
      for (std::uintptr_t at = area.begin; at < area.end; at += kPageBytes)
        if (area.protection !=
            native(model_[(at - reinterpret_cast<std::uintptr_t>(range_->data())) / kPageBytes]))
          ++n;
    return n;
  };
  for (std::size_t g = 1; g < 4096; g += 96) {
    sys::set_fault_plan({.call = sys::Call::mprotect, .nth = 1, .times = 1, .error = ENOMEM});
    ASSERT_TRUE(set(g, 1, Protection::none).is_ok());
    sys::clear_fault_plan();
    for (const auto& h : held) ASSERT_EQ(differing(h.span.first.value, h.span.count.value), 0u) << g;
  }
  EXPECT_GT(differing(700, 2000), 1000u) << "the others were taken";
  expect_kernel_agrees();

  range_->let_go(held[4]);
  range_->let_go(held[2]);
  sys::set_fault_plan({.call = sys::Call::mprotect, .nth = 1, .times = 1, .error = ENOMEM});
  ASSERT_TRUE(set(1, 1, Protection::read).is_ok());
  EXPECT_EQ(differing(100, 500), 0u) << "the other one of the two";
  for (const std::size_t i : {0, 1, 3}) range_->let_go(held[i]);
  sys::set_fault_plan({.call = sys::Call::mprotect, .nth = 1, .times = 1, .error = ENOMEM});
  ASSERT_TRUE(set(3, 1, Protection::read).is_ok());
  EXPECT_GT(differing(100, 500), 100u) << "nobody holds it any more";
  expect_kernel_agrees();
}

TEST_F(ProtectedRangeTest, ARightIsTakenAlsoWhenEverythingIsHeld) {
  make(1024);
  for (std::size_t g = 0; g < 1024; g += 2) ASSERT_TRUE(set(g, 1, Protection::read).is_ok());
  ProtectedRange::Held all{{GranuleIndex{0}, GranuleCount{1024}}};
  range_->hold(all);
  // However often it is tried, until nothing is left but to take the whole range.
  sys::set_fault_plan({.call = sys::Call::mprotect, .nth = 1, .times = 100, .error = ENOMEM});
  ASSERT_TRUE(set(501, 1, Protection::none).is_ok());
  sys::clear_fault_plan();
  expect_kernel_agrees();
  EXPECT_EQ(range_->areas(), 1u);
  range_->let_go(all);
}

TEST_F(ProtectedRangeTest, TakingAwaySucceedsEvenWhenNoAreaIsLeftInTheProcess) {
  make(1024);
  ProtectedRange fresh(Mapped::anonymous(1024 * kPageBytes), ByteCount{kPageBytes}, Protection::read_write,
                       Protection::read_write);
  ASSERT_TRUE(fresh.set(GranuleIndex{0}, GranuleCount{1024}, Protection::none).is_ok());
  const std::size_t pages = 2 * max_map_count();
  Status granted;
  Status taken;
  {
    // Somebody else uses up every area. Nothing but the range is asked for anything meanwhile.
    const Mapped hog = Mapped::anonymous(pages * kPageBytes);
    std::size_t page = 0;
    while (page < pages && ::mprotect(hog.data() + page * kPageBytes, kPageBytes, PROT_NONE) == 0) page += 2;
    while (page < pages && ::mprotect(hog.data() + page * kPageBytes, kPageBytes, PROT_NONE) == 0) page += 2;
    granted = fresh.set(GranuleIndex{500}, GranuleCount{1}, Protection::read);
    taken = set(500, 1, Protection::none);
    // One area again before anything else is unmapped: the sanitizers' own mappings need some.
    ::mprotect(hog.data(), hog.size(), PROT_NONE);
  }
  EXPECT_EQ(granted.code, Errc::resources);
  EXPECT_EQ(granted.system_error, ENOMEM);
  EXPECT_TRUE(taken.is_ok());
  expect_kernel_agrees();
  EXPECT_EQ(test::memory_areas(fresh.data(), fresh.size()).size(), fresh.areas());
  EXPECT_TRUE(fresh.set(GranuleIndex{500}, GranuleCount{1}, Protection::read).is_ok()) << "areas are back";
}

TEST_F(ProtectedRangeTest, ThreadsChangeDifferentGranulesWhileOthersOverProtect) {
  constexpr std::size_t kGranules = 8192;
  constexpr std::size_t kThreads = 4;
  make(kGranules);
  const int zeros = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(seed + static_cast<unsigned>(t));
      for (int i = test::scaled(8000); i > 0; --i) {
        const std::size_t g = random() % (kGranules / kThreads) * kThreads + t;
        const auto p = static_cast<Protection>(random() % 3);
        if (i % 50 == 0 && t == 0) {
          sys::set_fault_plan({.call = sys::Call::mprotect, .nth = 2, .times = 2, .error = ENOMEM});
        }
        if (!range_->set(GranuleIndex{g}, GranuleCount{1}, p).is_ok()) wrong.fetch_add(1);
        model_[g] = p;
        // The kernel stores into user memory only where user code could.
        const bool can_write = ::pread(zeros, range_->data() + g * kPageBytes, 1, 0) == 1;
        if (can_write && p != Protection::read_write) wrong.fetch_add(1);
      }
    });
  }
  for (auto& t : threads) t.join();
  ::close(zeros);
  sys::clear_fault_plan();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_GT(range_->over_protections(), 0u);
  expect_kernel_agrees();
}

TEST(ProtectedRange, ATebibyteOfSmallGranulesTakesNoMemory) {
  test::TemporaryDirectory directory;
  File file = File::open(directory.sparse("f", std::size_t{1} << 40), Access::read_write);
  ProtectedRange range(file.map_shared({ByteOffset{0}, ByteCount{std::size_t{1} << 40}}, Access::read_write),
                       ByteCount{kPageBytes}, Protection::read_write, Protection::read_write);
  for (std::uint64_t g = 0; g < std::uint64_t{1} << 28; g += std::uint64_t{1} << 20) {
    ASSERT_TRUE(range.set(GranuleIndex{g}, GranuleCount{1}, Protection::none).is_ok());
  }
  EXPECT_EQ(range.areas(), 512u);
}

}  // namespace
}  // namespace aprime::os
