// The frame pool against a model of it, in random order.

#include "host/device/frame_pool.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <iterator>
#include <map>
#include <random>
#include <vector>

#include "tests/test_scale.hpp"

namespace aprime::device {
namespace {

using Kind = FramePool::Claim::Kind;

FrameOwner owner(std::uint64_t granule, RegionId region = 0) { return {region, GranuleIndex{granule}}; }

/// What a pool must be, said as simply as possible.
class Model {
 public:
  struct Granule {
    std::uint64_t count;
    FrameOwner owner;
    std::uint32_t dirty = 0;
  };

  explicit Model(std::uint64_t frames) : at_(frames, kFree), pins_(frames), reserved_(frames) {}

  std::uint64_t frames() const { return at_.size(); }
  std::uint64_t free_count() const {
    std::uint64_t n = 0;
    for (std::uint64_t f = 0; f < frames(); ++f) n += is_free(f);
    return n;
  }
  bool is_free(std::uint64_t f) const { return at_[f] == kFree && !reserved_[f]; }
  bool occupied(std::uint64_t f) const { return at_[f] != kFree; }
  bool held(std::uint64_t f) const { return pins_[f] != 0 || reserved_[f]; }
  bool all_free(std::uint64_t first, std::uint64_t count) const {
    for (std::uint64_t f = first; f < first + count; ++f)
      if (!is_free(f)) return false;
    return true;
  }
  bool any_held(std::uint64_t first, std::uint64_t count) const {
    for (std::uint64_t f = first; f < first + count; ++f)
      if (held(f)) return true;
    return false;
  }
  bool has_free_window(std::uint64_t count) const {
    for (std::uint64_t first = 0; first + count <= frames(); first += count)
      if (all_free(first, count)) return true;
    return false;
  }
  /// Whether `count` frames could be had by evicting granules none of whose frames is held.
  bool has_evictable_window(std::uint64_t count) const {
    for (std::uint64_t first = 0; first + count <= frames(); first += count) {
      std::uint64_t begin = first;
      std::uint64_t end = first + count;
      if (at_[first] != kFree && granules.at(at_[first]).count > count) {
        begin = at_[first];
        end = begin + granules.at(begin).count;
      }
      if (!any_held(begin, end - begin)) return true;
    }
    return false;
  }
  bool has_run(std::uint64_t count, std::uint64_t alignment) const {
    for (std::uint64_t first = 0; first + count <= frames(); first += alignment) {
      const bool cuts = at_[first] != kFree && at_[first] != first;
      if (!cuts && !any_held(first, count)) return true;
    }
    return false;
  }
  void place(std::uint64_t first, std::uint64_t count, FrameOwner who) {
    granules[first] = {count, who};
    for (std::uint64_t f = first; f < first + count; ++f) {
      at_[f] = first;
      reserved_[f] = false;
    }
  }
  void remove(std::uint64_t first) {
    for (std::uint64_t f = first; f < first + granules.at(first).count; ++f) at_[f] = kFree;
    granules.erase(first);
  }
  void reserve(std::uint64_t first, std::uint64_t count, bool on) {
    for (std::uint64_t f = first; f < first + count; ++f) reserved_[f] = on;
  }
  void pin(std::uint64_t first, int by) {
    for (std::uint64_t f = first; f < first + granules.at(first).count; ++f) pins_[f] += by;
  }
  bool pinned(std::uint64_t first) const { return pins_[first] != 0; }

  std::map<std::uint64_t, Granule> granules;

 private:
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};
  std::vector<std::uint64_t> at_;
  std::vector<int> pins_;
  std::vector<bool> reserved_;
};

class FramePoolRandom : public testing::TestWithParam<unsigned> {
 protected:
  std::uint64_t below(std::uint64_t n) {
    return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(random_);
  }
  std::uint64_t any_granule() {
    auto it = model_.granules.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(below(model_.granules.size())));
    return it->first;
  }
  void evict(std::uint64_t first) {
    pool_.free(FrameIndex{first}, FrameCount{model_.granules.at(first).count});
    model_.remove(first);
  }

  void claim() {
    const std::uint64_t count = std::uint64_t{1} << below(5);
    const FrameOwner who = owner(below(1000), static_cast<RegionId>(below(3)));
    const auto claim = pool_.claim(FrameCount{count}, who);
    ASSERT_EQ(claim.kind == Kind::got, model_.has_free_window(count));
    if (claim.kind == Kind::got) {
      ASSERT_EQ(claim.frame.value % count, 0u);
      ASSERT_TRUE(model_.all_free(claim.frame.value, count));
      model_.place(claim.frame.value, count, who);
    } else if (claim.kind == Kind::evict) {
      const auto victim = model_.granules.find(claim.frame.value);
      ASSERT_NE(victim, model_.granules.end());
      ASSERT_EQ(claim.victim, victim->second.owner);
      ASSERT_FALSE(model_.any_held(victim->first, victim->second.count));
      if (below(4) != 0) evict(victim->first);
    } else {
      ASSERT_FALSE(model_.has_evictable_window(count));
    }
  }
  void pin() {
    if (model_.granules.empty()) return;
    const std::uint64_t first = any_granule();
    const FrameCount count{model_.granules.at(first).count};
    const bool unpin = model_.pinned(first) && below(3) != 0;
    unpin ? pool_.unpin(FrameIndex{first}, count) : pool_.pin(FrameIndex{first}, count);
    model_.pin(first, unpin ? -1 : 1);
  }
  void mark() {
    if (model_.granules.empty()) return;
    const std::uint64_t first = any_granule();
    const auto ms = static_cast<std::uint32_t>(below(3));
    pool_.set_dirty_since(FrameIndex{first}, ms);
    model_.granules.at(first).dirty = ms;
    if (below(2) == 0) pool_.touch(FrameIndex{first});
  }
  /// A lease: reserve, evict what is there, assign some of it, cancel the rest.
  void lease() {
    const std::uint64_t alignment = std::uint64_t{1} << below(4);
    const std::uint64_t count = alignment * (1 + below(6));
    const auto run = pool_.reserve_run(FrameCount{count}, FrameCount{alignment});
    ASSERT_EQ(run.has_value(), model_.has_run(count, alignment));
    if (!run) return;
    const std::uint64_t first = run->value;
    ASSERT_EQ(first % alignment, 0u);
    ASSERT_FALSE(model_.any_held(first, count));
    model_.reserve(first, count, true);
    for (std::uint64_t f = first; f < first + count; ++f) {
      const auto there = pool_.owner_at(FrameIndex{f});
      const auto expected = model_.granules.find(f);
      ASSERT_EQ(there.has_value(), expected != model_.granules.end());
      if (there && below(4) != 0) evict(f);
    }
    for (std::uint64_t f = first; f < first + count; f += alignment) {
      bool empty = below(3) != 0;
      for (std::uint64_t i = f; i < f + alignment; ++i) empty = empty && !model_.occupied(i);
      if (!empty) continue;
      pool_.assign(FrameIndex{f}, FrameCount{alignment}, owner(f, 7));
      model_.place(f, alignment, owner(f, 7));
    }
    pool_.cancel_run(FrameIndex{first}, FrameCount{count});
    model_.reserve(first, count, false);
  }

  std::mt19937_64 random_{GetParam()};
  static constexpr std::uint64_t kFrames = 203;
  FramePool pool_{FrameCount{kFrames}};
  Model model_{kFrames};
};

TEST_P(FramePoolRandom, BehavesAsTheModel) {
  SCOPED_TRACE(testing::Message() << "seed " << GetParam());
  for (int step = 0; step < test::scaled(8000); ++step) {
    switch (below(8)) {
      default: claim(); break;
      case 4: pin(); break;
      case 5: mark(); break;
      case 6: lease(); break;
      case 7:
        if (model_.granules.empty()) break;
        if (const std::uint64_t first = any_granule(); !model_.pinned(first)) evict(first);
        break;
    }
    if (HasFatalFailure()) FAIL() << "at step " << step;
    ASSERT_EQ(pool_.free_count().value, model_.free_count());
    if (step % 64 != 0) continue;
    std::vector<FrameOwner> dirty;
    pool_.collect({}, {GranuleIndex{0}, GranuleCount{~std::uint64_t{0}}}, true, dirty);
    std::vector<FrameOwner> expected;
    for (const auto& [first, granule] : model_.granules)
      if (granule.dirty != 0) expected.push_back(granule.owner);
    ASSERT_THAT(dirty, testing::UnorderedElementsAreArray(expected));
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, FramePoolRandom, testing::Range(1u, 9u));

}  // namespace
}  // namespace aprime::device
