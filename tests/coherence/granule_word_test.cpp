#include "host/coherence/granule_word.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace aprime::coherence {
namespace {

std::vector<GranuleState> legal_states() {
  std::vector<GranuleState> states;
  for (unsigned kind = 0; kind < kKindCount; ++kind)
    for (unsigned owner = 0; owner < 16; ++owner)
      for (unsigned readers = 0; readers < 0x10000; ++readers) {
        const GranuleState s{static_cast<Kind>(kind), AgentId::from_index(owner),
                             AgentSet{static_cast<std::uint16_t>(readers)}};
        if (s.is_legal()) states.push_back(s);
      }
  return states;
}

TEST(GranuleWord, zero_is_the_state_of_a_granule_that_nobody_else_has_touched) {
  const GranuleWord word{0};
  EXPECT_EQ(word.state(), GranuleState::cpu_exclusive());
  EXPECT_FALSE(word.busy());
  EXPECT_FALSE(word.has_waiters());
  EXPECT_EQ(word.pins(), 0u);
  EXPECT_EQ(word.epoch(), 0u);
}

TEST(GranuleWord, keeps_every_legal_state_and_nothing_else_changes) {
  const GranuleWord full = GranuleWord{}.with_busy().with_waiter().with_pin().with_pin();
  for (const GranuleState& s : legal_states()) {
    const GranuleWord word = full.with_state(s);
    ASSERT_EQ(word.state(), s);
    ASSERT_TRUE(word.busy());
    ASSERT_TRUE(word.has_waiters());
    ASSERT_EQ(word.pins(), 2u);
    ASSERT_EQ(word.with_state(GranuleState::cpu_exclusive()).bits(), full.bits());
  }
}

TEST(GranuleWord, release_ends_the_transaction_and_keeps_state_and_pins) {
  const GranuleState s = GranuleState::device_owned(AgentId::device(13));
  const GranuleWord word = GranuleWord{}.with_state(s).with_busy().with_waiter().with_pin();
  const GranuleWord free = word.released();
  EXPECT_FALSE(free.busy());
  EXPECT_FALSE(free.has_waiters());
  EXPECT_EQ(free.state(), s);
  EXPECT_EQ(free.pins(), 1u);
  EXPECT_EQ(free.epoch(), word.epoch() + 1);
}

TEST(GranuleWord, pins_count_to_their_maximum_without_touching_their_neighbours) {
  const GranuleState s = GranuleState::shared_by(AgentSet{0x7fff});
  GranuleWord word = GranuleWord{}.with_state(s);
  for (unsigned n = 1; n <= GranuleWord::kPinsMax; ++n) {
    word = word.with_pin();
    ASSERT_EQ(word.pins(), n);
  }
  EXPECT_EQ(word.state(), s);
  EXPECT_EQ(word.epoch(), 0u);
  for (unsigned n = GranuleWord::kPinsMax; n > 0; --n) word = word.without_pin();
  EXPECT_EQ(word.bits(), GranuleWord{}.with_state(s).bits());
}

TEST(GranuleWord, an_epoch_at_its_maximum_wraps_and_touches_nothing_else) {
  const GranuleWord last{std::uint64_t{0xffffff} << 40};
  EXPECT_EQ(last.epoch(), 0xffffffu);
  EXPECT_EQ(last.with_pin().with_busy().released().bits(), GranuleWord{}.with_pin().bits());
}

TEST(GranuleState, at_most_one_may_write_and_then_nobody_else_may_read) {
  for (const GranuleState& s : legal_states()) {
    unsigned writers = 0;
    unsigned readers = 0;
    for (unsigned i = 0; i < 16; ++i) {
      const AgentId a = AgentId::from_index(i);
      writers += s.may_write(a);
      readers += s.may_read(a);
      ASSERT_TRUE(s.may_read(a) || !s.may_write(a));
      ASSERT_EQ(s.may_read(a), s.holders().contains(a));
    }
    ASSERT_LE(writers, 1u);
    ASSERT_TRUE(writers == 0 || readers == 1);
  }
}

TEST(GranuleState, the_newest_bytes_are_in_exactly_one_kind_of_place) {
  for (const GranuleState& s : legal_states())
    ASSERT_EQ(1, s.home_is_current() + s.is_device_dirty() + (s.kind == Kind::mount_exclusive));
}

TEST(AgentId, each_agent_has_an_index_of_its_own) {
  EXPECT_TRUE(AgentId::cpu().is_cpu());
  EXPECT_TRUE(AgentId::mount().is_mount());
  unsigned seen = AgentSet::of(AgentId::cpu()).with(AgentId::mount()).bits;
  for (unsigned d = 0; d < AgentId::kDevicesMax; ++d) {
    const AgentId a = AgentId::device(d);
    EXPECT_TRUE(a.is_device());
    EXPECT_EQ(a.device_number(), d);
    EXPECT_EQ(AgentId::from_index(a.index()), a);
    EXPECT_EQ(seen & AgentSet::of(a).bits, 0u);
    seen |= AgentSet::of(a).bits;
  }
  EXPECT_EQ(seen, 0xffffu);
}

}  // namespace
}  // namespace aprime::coherence
