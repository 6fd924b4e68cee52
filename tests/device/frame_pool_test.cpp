#include "host/device/frame_pool.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "tests/test_scale.hpp"

namespace aprime::device {

void PrintTo(const FrameOwner& owner, std::ostream* out) {
  *out << "region " << owner.region << " granule " << owner.granule.value;
}

namespace {

using Kind = FramePool::Claim::Kind;
using testing::UnorderedElementsAre;

FrameOwner owner(std::uint64_t granule, RegionId region = 0) { return {region, GranuleIndex{granule}}; }

/// Claims single frames for granules 0, 1, 2, ... until the pool is full.
void fill_up(FramePool& pool) {
  for (std::uint64_t g = 0; g < pool.capacity().value; ++g) {
    const auto claim = pool.claim(FrameCount{1}, owner(g));
    ASSERT_EQ(claim.kind, Kind::got);
    ASSERT_EQ(claim.frame, FrameIndex{g});
  }
}

void forget_uses(FramePool& pool) {
  // The first sweep forgets that each frame was just claimed, the second stops at once.
  ASSERT_EQ(pool.claim(FrameCount{1}, owner(999)).kind, Kind::evict);
}

TEST(FramePool, OldestIsTheSameWhenTheClockWraps) {
  FramePool pool(FrameCount{4});
  for (std::uint64_t g = 0; g < 3; ++g) pool.claim(FrameCount{1}, {0, GranuleIndex{g}});
  pool.set_dirty_since(FrameIndex{0}, 3);
  pool.set_dirty_since(FrameIndex{1}, 0xFFFFFFF1);
  pool.set_dirty_since(FrameIndex{2}, 0xFFFFFFF7);
  EXPECT_EQ(pool.oldest_dirty(5), 0xFFFFFFF1);
}

TEST(FramePool, ClaimTakesAlignedContiguousFrames) {
  FramePool pool(FrameCount{100});
  ASSERT_EQ(pool.claim(FrameCount{1}, owner(0)).frame, FrameIndex{0});
  const auto claim = pool.claim(FrameCount{8}, owner(1));
  ASSERT_EQ(claim.kind, Kind::got);
  EXPECT_EQ(claim.frame, FrameIndex{8});
  EXPECT_EQ(pool.free_count(), FrameCount{91});
  EXPECT_EQ(pool.owner_at(FrameIndex{8}), owner(1));
  EXPECT_EQ(pool.owner_at(FrameIndex{9}), std::nullopt) << "only the first frame names the granule";
  pool.free(FrameIndex{8}, FrameCount{8});
  EXPECT_EQ(pool.free_count(), FrameCount{99});
  EXPECT_EQ(pool.owner_at(FrameIndex{8}), std::nullopt);
}

TEST(FramePool, FramesPastTheLastWholeWindowAreUsedForSmallGranulesOnly) {
  FramePool pool(FrameCount{200});
  ASSERT_EQ(pool.claim(FrameCount{128}, owner(0)).kind, Kind::got);
  const auto second = pool.claim(FrameCount{128}, owner(1));
  EXPECT_EQ(second.kind, Kind::evict)
      << "72 frames are free, but 128 together only if the first granule goes";
  EXPECT_EQ(second.victim, owner(0));
  EXPECT_EQ(pool.claim(FrameCount{64}, owner(2)).frame, FrameIndex{128});
  EXPECT_EQ(pool.claim(FrameCount{8}, owner(3)).frame, FrameIndex{192});
  EXPECT_EQ(pool.free_count(), FrameCount{0});
}

TEST(FramePool, AGranuleLargerThanThePoolNeverFits) {
  FramePool pool(FrameCount{16});
  EXPECT_EQ(pool.claim(FrameCount{32}, owner(0)).kind, Kind::none_free);
}

TEST(FramePool, TheClockGivesUsedGranulesASecondChance) {
  FramePool pool(FrameCount{4});
  fill_up(pool);
  EXPECT_EQ(pool.claim(FrameCount{1}, owner(9)).victim, owner(0));
  pool.touch(FrameIndex{1});
  EXPECT_EQ(pool.claim(FrameCount{1}, owner(9)).victim, owner(2));
  EXPECT_EQ(pool.claim(FrameCount{1}, owner(9)).victim, owner(3));
  EXPECT_EQ(pool.claim(FrameCount{1}, owner(9)).victim, owner(0))
      << "a victim that was not evicted is named again";
  EXPECT_EQ(pool.claim(FrameCount{1}, owner(9)).victim, owner(1)) << "its second chance is over";
}

TEST(FramePool, PinnedAndReservedFramesAreNeverNamed) {
  FramePool pool(FrameCount{4});
  fill_up(pool);
  pool.pin(FrameIndex{0}, FrameCount{1});
  pool.pin(FrameIndex{0}, FrameCount{1});
  pool.unpin(FrameIndex{0}, FrameCount{1});
  const auto run = pool.reserve_run(FrameCount{2}, FrameCount{2});
  ASSERT_EQ(run, FrameIndex{2});
  for (int i = 0; i < 10; ++i) EXPECT_EQ(pool.claim(FrameCount{1}, owner(9)).victim, owner(1));
  pool.pin(FrameIndex{1}, FrameCount{1});
  EXPECT_EQ(pool.claim(FrameCount{1}, owner(9)).kind, Kind::none_free);
  pool.unpin(FrameIndex{0}, FrameCount{1});
  EXPECT_EQ(pool.claim(FrameCount{1}, owner(9)).victim, owner(0)) << "pins nest";
}

TEST(FramePool, SmallGranulesInAWindowAreNamedOneByOne) {
  FramePool pool(FrameCount{8});
  fill_up(pool);
  std::vector<std::uint64_t> victims;
  for (;;) {
    const auto claim = pool.claim(FrameCount{4}, owner(100));
    if (claim.kind == Kind::got) {
      EXPECT_EQ(claim.frame, FrameIndex{0});
      break;
    }
    ASSERT_EQ(claim.kind, Kind::evict);
    victims.push_back(claim.victim.granule.value);
    pool.free(claim.frame, FrameCount{1});
  }
  EXPECT_THAT(victims, testing::ElementsAre(0, 1, 2, 3)) << "no more than the window holds";
}

TEST(FramePool, AWindowThatTurnsOutToBePinnedIsGivenUp) {
  FramePool pool(FrameCount{8});
  fill_up(pool);
  ASSERT_EQ(pool.claim(FrameCount{4}, owner(100)).victim, owner(0));
  pool.pin(FrameIndex{2}, FrameCount{1});
  EXPECT_EQ(pool.claim(FrameCount{4}, owner(100)).victim, owner(4));
}

TEST(FramePool, ALargeGranuleIsTheVictimForASmallClaim) {
  FramePool pool(FrameCount{8});
  ASSERT_EQ(pool.claim(FrameCount{8}, owner(7)).kind, Kind::got);
  const auto claim = pool.claim(FrameCount{1}, owner(1));
  ASSERT_EQ(claim.kind, Kind::evict);
  EXPECT_EQ(claim.victim, owner(7));
  EXPECT_EQ(claim.frame, FrameIndex{0});
}

TEST(FramePool, ARunTakesFreeFramesFirstThenCleanThenDirtyOnes) {
  FramePool pool(FrameCount{16});
  fill_up(pool);
  forget_uses(pool);
  for (std::uint64_t at = 0; at < 16; ++at) pool.set_dirty_since(FrameIndex{at}, 5);
  pool.set_dirty_since(FrameIndex{5}, 0);
  pool.set_dirty_since(FrameIndex{6}, 0);
  EXPECT_EQ(pool.reserve_run(FrameCount{2}, FrameCount{1}), FrameIndex{5}) << "clean rather than dirty";
  pool.cancel_run(FrameIndex{5}, FrameCount{2});
  pool.touch(FrameIndex{6});
  pool.set_dirty_since(FrameIndex{4}, 0);
  EXPECT_EQ(pool.reserve_run(FrameCount{2}, FrameCount{1}), FrameIndex{4}) << "idle rather than used";
  pool.cancel_run(FrameIndex{4}, FrameCount{2});
  pool.free(FrameIndex{12}, FrameCount{1});
  pool.free(FrameIndex{13}, FrameCount{1});
  EXPECT_EQ(pool.reserve_run(FrameCount{2}, FrameCount{1}), FrameIndex{12}) << "free rather than clean";
}

TEST(FramePool, ARunIsAlignedAndNeverBeginsInsideAGranule) {
  FramePool pool(FrameCount{24});
  ASSERT_EQ(pool.claim(FrameCount{8}, owner(0)).kind, Kind::got);
  ASSERT_EQ(pool.claim(FrameCount{8}, owner(1)).kind, Kind::got);
  pool.pin(FrameIndex{0}, FrameCount{8});
  EXPECT_EQ(pool.reserve_run(FrameCount{12}, FrameCount{1}), FrameIndex{8});
  pool.cancel_run(FrameIndex{8}, FrameCount{12});
  EXPECT_EQ(pool.reserve_run(FrameCount{3}, FrameCount{4}), FrameIndex{16});
  EXPECT_EQ(pool.reserve_run(FrameCount{9}, FrameCount{4}), std::nullopt);
}

TEST(FramePool, ReservedFramesGoToTheLeaseOnly) {
  FramePool pool(FrameCount{4});
  ASSERT_EQ(pool.claim(FrameCount{2}, owner(0)).kind, Kind::got);
  ASSERT_EQ(pool.reserve_run(FrameCount{3}, FrameCount{1}), FrameIndex{0})
      << "two free frames and half a granule";
  EXPECT_EQ(pool.free_count(), FrameCount{1});
  EXPECT_EQ(pool.claim(FrameCount{1}, owner(1)).frame, FrameIndex{3});
  pool.free(FrameIndex{0}, FrameCount{2});
  EXPECT_EQ(pool.free_count(), FrameCount{0}) << "frames freed inside the run stay reserved";
  EXPECT_EQ(pool.claim(FrameCount{1}, owner(2)).victim, owner(1));
  pool.assign(FrameIndex{0}, FrameCount{2}, owner(5));
  EXPECT_EQ(pool.owner_at(FrameIndex{0}), owner(5));
  pool.free(FrameIndex{0}, FrameCount{2});
  EXPECT_EQ(pool.free_count(), FrameCount{0}) << "what was assigned and has left, too";
  pool.assign(FrameIndex{0}, FrameCount{2}, owner(5));
  pool.cancel_run(FrameIndex{0}, FrameCount{3});
  EXPECT_EQ(pool.free_count(), FrameCount{1}) << "what was assigned stays";
}

TEST(FramePool, GranulesInARowAreAssignedAndMarkedInOneGo) {
  FramePool pool(FrameCount{16});
  ASSERT_EQ(pool.reserve_run(FrameCount{8}, FrameCount{2}), FrameIndex{0});
  EXPECT_EQ(pool.next_owned(FrameIndex{0}, FrameIndex{8}), FrameIndex{8});
  pool.assign(FrameIndex{2}, FrameCount{2}, owner(5), GranuleCount{3});
  EXPECT_EQ(pool.owner_at(FrameIndex{4}), owner(6));
  EXPECT_EQ(pool.next_owned(FrameIndex{0}, FrameIndex{8}), FrameIndex{2});
  EXPECT_EQ(pool.next_owned(FrameIndex{3}, FrameIndex{8}), FrameIndex{4});

  pool.set_dirty_since(FrameIndex{4}, 7);
  EXPECT_EQ(pool.set_all_dirty_since(FrameIndex{2}, FrameCount{6}, 9), 2u);
  EXPECT_EQ(pool.dirty_since(FrameIndex{4}), 7u) << "it has been dirty since then";
  EXPECT_EQ(pool.dirty_since(FrameIndex{6}), 9u);
  EXPECT_EQ(pool.set_all_dirty_since(FrameIndex{2}, FrameCount{4}, 0), 2u);
  EXPECT_EQ(pool.dirty_since(FrameIndex{4}), 0u);
  EXPECT_EQ(pool.dirty_since(FrameIndex{6}), 9u);
}

TEST(FramePool, GranulesInARowMoveInOneGoAndStayAsDirty) {
  FramePool pool(FrameCount{12});
  for (unsigned i = 0; i < 2; ++i) ASSERT_EQ(pool.claim(FrameCount{2}, owner(5 + i)).kind, Kind::got);
  pool.set_dirty_since(FrameIndex{2}, 7);
  ASSERT_EQ(pool.reserve_run(FrameCount{6}, FrameCount{2}), FrameIndex{4});
  pool.move(FrameIndex{0}, FrameIndex{6}, FrameCount{2}, GranuleCount{2});
  EXPECT_EQ(pool.next_owned(FrameIndex{0}, FrameIndex{12}), FrameIndex{6});
  EXPECT_EQ(pool.owner_at(FrameIndex{6}), owner(5));
  EXPECT_EQ(pool.owner_at(FrameIndex{8}), owner(6));
  EXPECT_EQ(pool.dirty_since(FrameIndex{6}), 0u);
  EXPECT_EQ(pool.dirty_since(FrameIndex{8}), 7u);
  pool.cancel_run(FrameIndex{4}, FrameCount{6});
  EXPECT_EQ(pool.free_count(), FrameCount{8});
}

TEST(FramePool, AGranuleThatReachesBeyondTheRunGivesTheRestBack) {
  FramePool pool(FrameCount{8});
  ASSERT_EQ(pool.claim(FrameCount{8}, owner(0)).kind, Kind::got);
  ASSERT_EQ(pool.reserve_run(FrameCount{3}, FrameCount{1}), FrameIndex{0});
  pool.free(FrameIndex{0}, FrameCount{8});
  EXPECT_EQ(pool.free_count(), FrameCount{5});
}

TEST(FramePool, CollectFindsTheGranulesOfARegion) {
  FramePool pool(FrameCount{8});
  const auto a = pool.claim(FrameCount{1}, owner(3, 1));
  ASSERT_EQ(pool.claim(FrameCount{2}, owner(4, 1)).kind, Kind::got);
  ASSERT_EQ(pool.claim(FrameCount{1}, owner(4, 2)).kind, Kind::got);
  const GranuleRange all{GranuleIndex{0}, GranuleCount{~std::uint64_t{0}}};
  const auto collect = [&](std::optional<RegionId> region, GranuleRange range, bool dirty_only) {
    std::vector<FrameOwner> out;
    pool.collect(region, range, dirty_only, out);
    return out;
  };
  EXPECT_THAT(collect({}, all, false), UnorderedElementsAre(owner(3, 1), owner(4, 1), owner(4, 2)));
  EXPECT_THAT(collect(1, all, false), UnorderedElementsAre(owner(3, 1), owner(4, 1)));
  EXPECT_THAT(collect(1, {GranuleIndex{4}, GranuleCount{~std::uint64_t{0}}}, false),
              UnorderedElementsAre(owner(4, 1)));
  EXPECT_THAT(collect({}, all, true), testing::IsEmpty());
  pool.set_dirty_since(a.frame, 7);
  EXPECT_EQ(pool.dirty_since(a.frame), 7u);
  EXPECT_THAT(collect({}, all, true), UnorderedElementsAre(owner(3, 1)));
}

TEST(FramePool, TwoThreadsNeverGetTheSameFrame) {
  FramePool pool(FrameCount{64});
  std::vector<std::atomic<int>> users(64);
  std::atomic<int> clashes{0};
  const auto work = [&](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < test::scaled(20000); ++i) {
      const std::uint64_t count = std::uint64_t{1} << random() % 3;
      const auto claim = pool.claim(FrameCount{count}, owner(seed));
      if (claim.kind != Kind::got) continue;
      for (std::uint64_t f = claim.frame.value; f < claim.frame.value + count; ++f)
        clashes += users[f]++ != 0;
      for (std::uint64_t f = claim.frame.value; f < claim.frame.value + count; ++f) --users[f];
      pool.free(claim.frame, FrameCount{count});
    }
  };
  std::vector<std::thread> threads;
  for (std::uint64_t t = 1; t <= 4; ++t) threads.emplace_back(work, t);
  for (auto& t : threads) t.join();
  EXPECT_EQ(clashes, 0);
  EXPECT_EQ(pool.free_count(), FrameCount{64});
}

}  // namespace
}  // namespace aprime::device
