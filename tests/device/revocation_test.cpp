#include <gtest/gtest.h>

#include <array>

#include "aprime/detail/page_access.hpp"

// How a right is taken from an entry that device threads have pins on.

namespace aprime::detail {
namespace {

constexpr std::uint64_t kEntry = std::uint64_t{3} << PageEntry::kFrameShift | PageEntry::kReadWrite;

/// A ring of commands, and somebody who executes them.
class Revocation : public testing::Test {
 protected:
  Revocation() { port_.commands = commands_.data(); }

  /// Whether the answer is `pinned`.
  bool answers_pinned(PagingOp op) {
    const std::uint64_t number = ++posted_;
    PagingCommand& command = commands_[(number - 1) % kPagingCommands];
    command = {.ready = number, .op = op, .entry = &entry_};
    execute_at_once(port_, command, number);
    EXPECT_EQ(command.done >> 1, number) << "the place in the ring is the host's again";
    return (command.done & 1) != 0;
  }

  std::array<PagingCommand, kPagingCommands> commands_{};
  PagingPort port_{};
  std::uint64_t posted_ = 0;
  std::uint64_t entry_ = kEntry;
};

TEST_F(Revocation, a_pin_keeps_no_place_in_the_ring) {
  entry_ += PageEntry::kPin;
  for (std::uint64_t i = 0; i < 2 * kPagingCommands; ++i) ASSERT_TRUE(answers_pinned(PagingOp::revoke));
  unpin(&entry_, 1);
  EXPECT_FALSE(answers_pinned(PagingOp::revoke));
}

TEST_F(Revocation, one_unpin_lets_all_who_asked_have_it) {
  entry_ += 2 * PageEntry::kPin;
  EXPECT_TRUE(answers_pinned(PagingOp::protect));
  EXPECT_TRUE(answers_pinned(PagingOp::revoke));
  unpin(&entry_, 2);
  EXPECT_EQ(entry_ & (PageEntry::kReadWrite | PageEntry::kRevoking | PageEntry::kRevokingAll), 0U);
  EXPECT_FALSE(answers_pinned(PagingOp::protect));
  EXPECT_FALSE(answers_pinned(PagingOp::revoke));
}

TEST_F(Revocation, what_is_taken_is_not_waited_for_again) {
  EXPECT_FALSE(answers_pinned(PagingOp::protect));
  EXPECT_EQ(entry_, kEntry & ~PageEntry::kWrite);
  entry_ += PageEntry::kPin;  // to load
  EXPECT_FALSE(answers_pinned(PagingOp::protect));
  EXPECT_TRUE(answers_pinned(PagingOp::revoke)) << "which that one may still do";
}

TEST_F(Revocation, a_right_that_is_given_back_ends_it) {
  entry_ += PageEntry::kPin;
  EXPECT_TRUE(answers_pinned(PagingOp::revoke));
  set_entry(&entry_, kEntry);
  unpin(&entry_, 1);
  EXPECT_EQ(entry_, kEntry);
}

/// Nobody else answers them: the host finds nothing to do.
TEST_F(Revocation, those_who_wait_to_load_are_answered_when_only_the_write_right_goes) {
  entry_ |= PageEntry::kPending;
  entry_ += PageEntry::kPin;
  EXPECT_TRUE(answers_pinned(PagingOp::protect));
  unpin(&entry_, 1);
  EXPECT_EQ(entry_, (kEntry & ~PageEntry::kWrite) | PageEntry::kPendingWrite);
}

TEST_F(Revocation, a_closed_entry_with_a_pin_is_not_released) {
  entry_ += PageEntry::kPin;
  close_entry(&entry_);
  EXPECT_EQ(entry_ & PageEntry::kReadWrite, 0U);
  EXPECT_TRUE(answers_pinned(PagingOp::revoke));
  unpin(&entry_, 1);
  EXPECT_FALSE(answers_pinned(PagingOp::revoke));
}

TEST_F(Revocation, pins_of_threads_that_are_gone_do_not_keep_it) {
  entry_ += PageEntry::kPin;
  EXPECT_TRUE(answers_pinned(PagingOp::revoke));
  entry_ &= ~PageEntry::kPins;
  EXPECT_FALSE(answers_pinned(PagingOp::revoke));
}

}  // namespace
}  // namespace aprime::detail
