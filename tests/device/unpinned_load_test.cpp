#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>

#include "aprime/detail/page_access.hpp"

// Loads without a pin, by what a thread remembers of an entry that has changed since.

namespace aprime::detail {
namespace {

/// Two granules of one frame each, in a memory of three frames, the bytes of which are all their number.
class UnpinnedLoad : public testing::Test {
 protected:
  static constexpr std::uint64_t kBytes = 4096;

  UnpinnedLoad() {
    for (std::size_t frame = 0; frame < 3; ++frame)
      std::memset(&memory_[frame * kBytes], static_cast<int>(frame), kBytes);
  }
  static std::uint64_t entry(std::uint64_t frame, std::uint64_t generation) {
    return frame << PageEntry::kFrameShift | generation * PageEntry::kGeneration | PageEntry::kRead;
  }
  PagedWindow window() {
    return {
        .entries = entries_.data(), .unpinned_frames = memory_.data(), .log2_granule = 12, .log2_frame = 12};
  }

  std::array<std::uint64_t, 2> entries_{};
  alignas(16) std::array<std::byte, 3 * kBytes> memory_{};
};

TEST_F(UnpinnedLoad, a_copy_that_has_moved_is_loaded_where_it_is) {
  entries_[0] = entry(2, 1);
  EntryGuess guess{entry(1, 0), 0};
  EXPECT_EQ(load_validated<std::uint8_t>(window(), 5, guess), 2);
  EXPECT_EQ(guess.entry, entries_[0]);
}

TEST_F(UnpinnedLoad, what_is_remembered_of_another_granule_does_not_count) {
  entries_ = {entry(1, 0), entry(2, 0)};
  EntryGuess guess{entry(1, 0), 1};  // torn: the entry is of granule 0
  EXPECT_EQ(load_validated<std::uint8_t>(window(), kBytes, guess), 2);
}

TEST_F(UnpinnedLoad, a_copy_that_is_taken_is_another_when_it_comes_back_to_its_frame) {
  entries_[0] = entry(1, 3);
  EXPECT_TRUE(take_right(&entries_[0], PagingOp::revoke));
  EXPECT_FALSE(is_same_copy(entry(1, 3), entries_[0]));
  set_entry(&entries_[0], entry(1, 0));
  EXPECT_EQ(entries_[0], entry(1, 4));
  EXPECT_FALSE(is_same_copy(entry(1, 3), entries_[0]));
}

TEST_F(UnpinnedLoad, pins_and_the_write_right_of_others_do_not_matter) {
  entries_[0] = entry(1, 3) | PageEntry::kWrite | 5 * PageEntry::kPin;
  EntryGuess guess{entry(1, 3), 0};
  EXPECT_EQ(load_validated<std::uint32_t>(window(), 8, guess), 0x0101'0101U);
}

template <class T>
class WholeWord : public testing::Test {};
using Words = testing::Types<std::uint16_t, std::uint32_t, std::uint64_t>;
TYPED_TEST_SUITE(WholeWord, Words);

/// Not a copy that is taken, but a store of another thread beside the load.
TYPED_TEST(WholeWord, is_loaded_at_once) {
  constexpr auto kOnes = static_cast<TypeParam>(~TypeParam{0});
  alignas(16) TypeParam word = 0;
  std::atomic<bool> ended{false};
  std::thread other([&] {
    for (TypeParam value = kOnes; !ended.load(std::memory_order_relaxed);
         value = static_cast<TypeParam>(~value))
      std::atomic_ref<TypeParam>(word).store(value, std::memory_order_relaxed);
  });
  unsigned torn = 0;
  for (int i = 0; i < 2'000'000; ++i) {
    const auto seen = load_unpinned<TypeParam>(reinterpret_cast<const std::byte*>(&word));
    torn += seen != 0 && seen != kOnes ? 1 : 0;
  }
  ended = true;
  other.join();
  EXPECT_EQ(torn, 0U);
}

}  // namespace
}  // namespace aprime::detail
