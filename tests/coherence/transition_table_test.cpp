#include "host/coherence/transition_table.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <tuple>
#include <vector>

#include "host/coherence/names.hpp"
#include "tests/coherence/model.hpp"

namespace aprime::coherence {
namespace {

const AgentId kCpu = AgentId::cpu();
const AgentId kMount = AgentId::mount();

/// Every legal state over the CPU, the mount, and three devices.
std::vector<GranuleState> some_states() {
  std::vector<GranuleState> states{GranuleState::cpu_exclusive(), GranuleState::at_home(),
                                   GranuleState::mount_exclusive()};
  for (unsigned readers = 1; readers < 16; ++readers)
    states.push_back(GranuleState::shared_by(AgentSet{static_cast<std::uint16_t>(readers)}));
  for (unsigned d = 0; d < 3; ++d) {
    states.push_back(GranuleState::device_exclusive(AgentId::device(d)));
    states.push_back(GranuleState::device_owned(AgentId::device(d)));
  }
  return states;
}

/// Calls `check` with each state, event and requester that go together.
template <class Check>
void for_each_case(Check check) {
  for (const GranuleState& s : some_states())
    for (unsigned e = 0; e < kEventCount; ++e)
      for (const AgentId a : {kCpu, AgentId::device(0), AgentId::device(1), AgentId::device(2), kMount}) {
        const auto event = static_cast<Event>(e);
        if (event == Event::evict && !a.is_device()) continue;
        SCOPED_TRACE(testing::Message() << name(s.kind) << ", " << name(event) << " by " << a.index());
        check(s, event, a);
        if (testing::Test::HasFatalFailure()) return;
      }
}

GranuleState end_of(GranuleState s, const StepList& steps, AgentId a) {
  for (const Step step : steps) s = apply(s, step, a);
  return s;
}

TEST(TransitionTable, has_no_case_twice) {
  std::set<std::tuple<Kind, Event, Who>> seen;
  for (const Row& r : rows()) EXPECT_TRUE(seen.emplace(r.kind, r.event, r.who).second);
}

TEST(TransitionTable, each_case_leads_through_legal_states_the_door_allows) {
  for_each_case([](const GranuleState& s, Event event, AgentId a) {
    GranuleState now = s;
    for (const Step step : plan(s, event, a)) {
      ASSERT_TRUE(allows(now, step, a)) << name(step);
      now = apply(now, step, a);
      ASSERT_TRUE(now.is_legal()) << name(step);
    }
  });
}

TEST(TransitionTable, a_request_that_is_repeated_finds_nothing_to_do) {
  for_each_case([](const GranuleState& s, Event event, AgentId a) {
    if (!is_agent_event(event) && event != Event::writeback) return;
    ASSERT_TRUE(plan(end_of(s, plan(s, event, a), a), event, a).empty());
  });
}

TEST(TransitionTable, reading_gives_a_device_no_right_to_write) {  // rule 3
  for_each_case([](const GranuleState& s, Event event, AgentId a) {
    if (event != Event::read || !a.is_device() || s.may_write(a)) return;
    ASSERT_FALSE(end_of(s, plan(s, event, a), a).may_write(a));
  });
}

TEST(TransitionTable, bouncing_leaves_ownership_with_the_device) {  // rule 7
  for_each_case([](const GranuleState& s, Event event, AgentId a) {
    if ((event != Event::bounce_read && event != Event::bounce_write) || !s.is_device_dirty()) return;
    ASSERT_EQ(end_of(s, plan(s, event, a), a), GranuleState::device_owned(s.owner));
  });
}

TEST(TransitionTable, writeback_leaves_the_device_a_clean_copy_to_read) {  // rule 8
  for_each_case([](const GranuleState& s, Event event, AgentId a) {
    if (event != Event::writeback || !s.is_device_dirty()) return;
    ASSERT_EQ(end_of(s, plan(s, event, a), a), GranuleState::shared_by(AgentSet::of(s.owner)));
  });
}

TEST(TransitionTable, after_a_write_through_home_or_a_discard_no_device_has_a_copy) {  // rules 9 and 10
  for_each_case([](const GranuleState& s, Event event, AgentId a) {
    if (event != Event::io_write && event != Event::discard) return;
    ASSERT_TRUE(end_of(s, plan(s, event, a), a).holders().minus(AgentSet::of(kCpu)).empty());
  });
}

TEST(TransitionTable, the_newest_bytes_of_a_device_go_home_before_its_copy_goes) {
  for_each_case([](const GranuleState& s, Event event, AgentId a) {
    if (!s.is_device_dirty() || event == Event::discard) return;
    bool home = false;
    GranuleState now = s;
    for (const Step step : plan(s, event, a)) {
      home = home || step == Step::copy_home;
      now = apply(now, step, a);
      ASSERT_TRUE(home || now.may_read(s.owner)) << name(step);
    }
  });
}

TEST(PinsInTheWay, of_whoever_loses_a_right_or_has_bytes_changed_in_place) {
  for_each_case([](const GranuleState& s, Event event, AgentId a) {
    const StepList& steps = plan(s, event, a);
    bool device_loses = event == Event::bounce_write && s.is_device_dirty();
    bool other_loses = false;
    GranuleState now = s;
    for (const Step step : steps) {
      now = apply(now, step, a);
      for (unsigned i = 0; i < 16; ++i) {
        const AgentId b = AgentId::from_index(i);
        const bool loses = (s.may_read(b) && !now.may_read(b)) || (s.may_write(b) && !now.may_write(b));
        (b.is_device() ? device_loses : other_loses) |= loses;
      }
    }
    ASSERT_EQ(pins_in_the_way(s, steps, event, a), other_loses    ? PinsInTheWay::of_all
                                                   : device_loses ? PinsInTheWay::of_devices
                                                                  : PinsInTheWay::none);
  });
}

TEST(PinsInTheWay, none_when_a_second_reader_comes) {
  const GranuleState s = GranuleState::shared_by(AgentSet::of(AgentId::device(0)));
  for (const AgentId a : {kCpu, AgentId::device(1)})
    EXPECT_EQ(pins_in_the_way(s, plan(s, Event::read, a), Event::read, a), PinsInTheWay::none);
}

TEST(CheckerTable, is_the_real_table) {
  const test::Table table;
  for_each_case([&](const GranuleState& s, Event event, AgentId a) {
    const Row* row = table.find(s.kind, event, who_is(s, event, a));
    ASSERT_NE(row, nullptr);
    const StepList& real = plan(s, event, a);
    ASSERT_TRUE(std::equal(real.begin(), real.end(), row->steps.begin(), row->steps.end()));
  });
}

}  // namespace
}  // namespace aprime::coherence
