#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "tests/paging/world.hpp"
#include "tests/test_scale.hpp"

// The device code for faults in a running kernel, and what Paging and DemandRegion do for it, in many orders
// of their steps, and with a memory as weak as a GPU's: random ones.

namespace aprime::explored {
namespace {

/// What a kernel and a host do at the same time.
struct Scenario {
  const char* name;
  World::Options options;
  std::function<void(World&)> threads;
};
void PrintTo(const Scenario& scenario, std::ostream* out) { *out << scenario.name; }

/// Goes on until the kernel is to end.
void read_for_ever(World& world, std::uint64_t g) {
  for (const World::Span span = world.span();;) {
    world.read(span, g);
    Explorer::running().sleep();
  }
}

const std::vector<Scenario>& scenarios() {
  static const std::vector<Scenario> all = {
      {"two_threads_add_in_opposite_order",
       {},
       [](World& w) {
         w.kernel([](World& world) { world.add(0), world.add(1); });
         w.kernel([](World& world) { world.add(1), world.add(0); });
       }},
      {"one_frame_for_two_granules",
       {.frames = 1},
       [](World& w) {
         w.kernel([](World& world) { world.add(0), world.add(1); });
         w.kernel([](World& world) {
           const World::Span span = world.span();
           world.read(span, 0), world.read(span, 1), world.read(span, 0);
         });
       }},
      {"three_threads_and_one_frame",
       {.frames = 1},
       [](World& w) {
         w.kernel([](World& world) { world.add(0); });
         w.kernel([](World& world) { world.add(1); });
         w.kernel([](World& world) { world.read_pinned(0); });
       }},
      {"the_host_adds_to_what_a_kernel_reads",
       {},
       [](World& w) {
         w.kernel([](World& world) {
           const World::Span span = world.span();
           world.read(span, 0), world.read(span, 0), world.read_pinned(0);
         });
         w.host([](World& world) { world.host_add(0), world.host_add(0); });
       }},
      {"the_host_reads_what_a_kernel_adds_to",
       {},
       [](World& w) {
         w.kernel([](World& world) { world.add(0), world.add_pinned(0); });
         w.kernel([](World& world) { world.add_pinned(0); });
         w.host([](World& world) { world.host_read(0), world.host_read(0); });
       }},
      {"the_host_adds_where_a_kernel_adds",
       {},
       [](World& w) {
         w.kernel([](World& world) { world.add_pinned(0), world.add(0); });
         w.host([](World& world) { world.host_add(0), world.host_read(0); });
         w.host([](World& world) { world.host_add(0); });
       }},
      {"the_host_adds_through_the_copy",
       {},
       [](World& w) {
         w.kernel([](World& world) {
           world.add(0);
           world.read(world.span(), 0);
           world.add_pinned(0);
         });
         w.host([](World& world) { world.host_add_through_copy(0), world.host_add_through_copy(0); });
       }},
      {"a_copy_goes_and_comes_back",
       {.frames = 1},
       [](World& w) {
         w.kernel([](World& world) {
           const World::Span span = world.span();
           world.read(span, 0), world.read(span, 0);
         });
         w.host([](World& world) { world.evict(0), world.host_add(0); });
         w.kernel([](World& world) { world.read_pinned(1); });
       }},
      {"the_host_reads_what_one_stores_to_and_one_waits_to_load",
       {},
       [](World& w) {
         w.kernel([](World& world) { world.add_pinned(0); });
         w.kernel([](World& world) {
           world.wait_for_pin();
           world.read_pinned(0), world.read_pinned(0);
         });
         w.host([](World& world) {
           world.wait_for_pin();
           world.host_read(0), world.evict(0);
         });
       }},
      {"a_right_is_asked_for_that_came_meanwhile",
       {},
       [](World& w) {
         w.kernel([](World& world) {
           world.read_pinned(0), world.ask_for(0);
           world.evict(0), world.read_pinned(0);
         });
       }},
      {"a_copy_comes_back_to_its_frame",
       {.frames = 1},
       [](World& w) {
         w.kernel([](World& world) {
           const World::Span span = world.span();
           for (int i = 0; i < 8; ++i) world.read(span, 0);
         });
         w.host([](World& world) {
           world.evict(0), world.prefetch(1);
           world.evict(1), world.prefetch(0);
         });
       }},
      {"threads_that_wait_are_the_pager",
       {.frames = 1, .has_pager = false},
       [](World& w) {
         w.kernel([](World& world) { world.add(0), world.add(1); });
         w.kernel([](World& world) { world.read_pinned(0); });
       }},
      {"others_copy",
       {.frames = 1, .copiers = 2},
       [](World& w) {
         w.kernel([](World& world) { world.add(0), world.add(1); });
         w.host([](World& world) { world.host_read(0); });
       }},
      {"lanes_of_the_pager_do_it_together",
       {.frames = 1, .pager_lanes = 2},
       [](World& w) {
         w.kernel([](World& world) { world.add(0), world.add(1), world.add(0); });
         w.host([](World& world) { world.host_read(0); });
       }},
      {"lanes_of_the_pager_look_and_others_copy",
       {.frames = 1, .copiers = 1, .pager_lanes = 2},
       [](World& w) {
         w.kernel([](World& world) { world.add(0), world.add(1); });
         w.host([](World& world) { world.host_read(0); });
       }},
      {"lanes_of_a_warp_add_to_the_same",
       {},
       [](World& w) {
         w.warp({[](World& world) { world.add(0), world.add_pinned(0); },
                 [](World& world) { world.add(0), world.add_pinned(0); }});
         w.host([](World& world) { world.host_add(0), world.host_read(0); });
       }},
      {"lanes_of_a_warp_go_different_ways",
       {.frames = 1},
       [](World& w) {
         w.warp({[](World& world) { world.add(0), world.add(1); },
                 [](World& world) {
                   const World::Span span = world.span();
                   world.read(span, 1), world.read_pinned(0), world.read(span, 1);
                 }});
       }},
      {"a_fault_that_cannot_be_served",
       {.bad_granule = 1},
       [](World& w) {
         w.kernel([](World& world) { world.add(1); });
         w.kernel([](World& world) { read_for_ever(world, 0); });
       }},
      {"a_kernel_ends_while_the_host_takes",
       {.bad_granule = 1},
       [](World& w) {
         w.kernel([](World& world) { read_for_ever(world, 0); });
         w.kernel([](World& world) { world.read_pinned(1); });
         w.host([](World& world) { world.evict(0); });
       }},
      {"a_lane_ends_while_others_wait",
       {.pager_lanes = 2, .bad_granule = 1},
       [](World& w) {
         w.warp({[](World& world) { world.add(0), world.add(1); },
                 [](World& world) { read_for_ever(world, 0); }});
       }},
      {"a_kernel_ends_while_the_host_writes_through_the_copy",
       {.bad_granule = 1},
       [](World& w) {
         w.kernel([](World& world) {
           world.add(0);
           world.add(1);
         });
         w.kernel([](World& world) { read_for_ever(world, 0); });
         w.host([](World& world) { world.host_add_through_copy(0); });
       }},
  };
  return all;
}

/// One world after the other.
class Worlds {
 public:
  Worlds(const Scenario& scenario, Flaw flaw) : scenario_(scenario), options_(scenario.options) {
    options_.flaw = flaw;
  }
  Explorer::Outcome explore(unsigned delays) { return explorer_.explore(delays, setup(), check()); }
  Explorer::Outcome sample(std::uint64_t runs) { return explorer_.sample(runs, 4, setup(), check()); }

 private:
  Explorer::Setup setup() {
    return [this](Explorer&) {
      world_.reset();
      world_ = std::make_unique<World>(options_);
      scenario_.threads(*world_);
    };
  }
  Explorer::Check check() {
    return [this] { return world_->check(); };
  }

  const Scenario& scenario_;
  World::Options options_;
  Explorer explorer_;
  std::unique_ptr<World> world_;
};

class PagingModel : public testing::TestWithParam<Scenario> {};

TEST_P(PagingModel, holds_in_all_orders_with_one_delay) {
  const Explorer::Outcome outcome = Worlds(GetParam(), Flaw::none).explore(1);
  EXPECT_EQ(outcome.failure, "");
  // There are as many as a run has steps.
  EXPECT_GT(outcome.runs, 100U);
}

TEST_P(PagingModel, holds_in_random_orders) {
  EXPECT_EQ(Worlds(GetParam(), Flaw::none).sample(test::scaled(2'000U)).failure, "");
}

INSTANTIATE_TEST_SUITE_P(Each, PagingModel, testing::ValuesIn(scenarios()),
                         [](const auto& of) { return std::string(of.param.name); });

/// A mistake, and what it must show in (a regular expression).
struct Mistake {
  const char* name;
  Flaw flaw;
  const char* scenario;
  const char* shows_as;
};
void PrintTo(const Mistake& mistake, std::ostream* out) { *out << mistake.name; }

class PagingMistake : public testing::TestWithParam<Mistake> {};

TEST_P(PagingMistake, is_noticed) {
  const auto scenario = std::find_if(scenarios().begin(), scenarios().end(), [](const Scenario& s) {
    return std::string_view(s.name) == GetParam().scenario;
  });
  ASSERT_NE(scenario, scenarios().end());
  // It ends with the first order in which something shows.
  const Explorer::Outcome outcome = Worlds(*scenario, GetParam().flaw).sample(200'000);
  RecordProperty("orders", std::to_string(outcome.runs));
  EXPECT_THAT(outcome.failure, testing::ContainsRegex(GetParam().shows_as));
}

// (A generation that is kept, and a protection that answers nobody, show in too few orders: UnpinnedLoad and
// Revocation have them by hand.)
constexpr Mistake kMistakes[] = {
    {"copies_before_revoking", Flaw::copies_before_revoking, "the_host_adds_where_a_kernel_adds",
     "not ordered|too old"},
    {"calls_pinned_taken", Flaw::calls_pinned_taken, "the_host_adds_where_a_kernel_adds",
     "not ordered|additions were made|too old"},
    {"loses_a_fault", Flaw::loses_a_fault, "two_threads_add_in_opposite_order", "does not end"},
    {"forgets_pins", Flaw::forgets_pins, "the_host_adds_where_a_kernel_adds", "does not end"},
    {"keeps_pending", Flaw::keeps_pending, "one_frame_for_two_granules", "does not end"},
    {"keeps_own_mark", Flaw::keeps_own_mark, "a_right_is_asked_for_that_came_meanwhile", "does not end"},
    {"keeps_read", Flaw::keeps_read, "one_frame_for_two_granules", "another granule's bytes"},
    {"releases_nothing", Flaw::releases_nothing, "others_copy", "not ordered|too old|another granule's"},
    {"acquires_nothing", Flaw::acquires_nothing, "others_copy", "not ordered|too old|another granule's"},
    {"has_no_fences", Flaw::has_no_fences, "others_copy", "not ordered|too old|another granule's"},
    {"lets_lanes_pass", Flaw::lets_lanes_pass, "lanes_of_the_pager_do_it_together", "not ordered|another"},
    {"lets_lanes_of_copiers_pass", Flaw::lets_lanes_pass, "lanes_of_the_pager_look_and_others_copy",
     "not ordered|another"},
    {"lets_lanes_of_a_kernel_pass", Flaw::lets_lanes_pass, "lanes_of_a_warp_add_to_the_same",
     "not ordered|another"},
};
INSTANTIATE_TEST_SUITE_P(Each, PagingMistake, testing::ValuesIn(kMistakes),
                         [](const auto& of) { return std::string(of.param.name); });

}  // namespace
}  // namespace aprime::explored
