#include "tests/explorer/explorer.hpp"

#include <gtest/gtest.h>

#include <string>

// Small programs with known defects.

namespace aprime::explored {
namespace {

void step() { Explorer::running().step(); }

/// Two threads that add to a word by a load and a store.
TEST(Explorer, a_lost_update_needs_one_delay) {
  Explorer explorer;
  int word = 0;
  const Explorer::Setup setup = [&](Explorer& e) {
    word = 0;
    for (int i = 0; i < 2; ++i)
      e.add_thread([&] {
        step();
        const int before = word;
        step();
        word = before + 1;
      });
  };
  const Explorer::Check check = [&] { return std::string(word == 2 ? "" : "an addition was lost"); };
  EXPECT_EQ(explorer.explore(0, setup, check).failure, "");
  EXPECT_EQ(explorer.explore(1, setup, check).failure, "an addition was lost (run 3, delays before steps 1)");
  EXPECT_NE(explorer.sample(100, 2, setup, check).failure, "");
}

/// Steps of threads that cannot meet; counted by hand for two threads of two steps.
TEST(Explorer, every_delay_is_placed_everywhere) {
  Explorer explorer;
  const Explorer::Setup setup = [](Explorer& e) {
    for (int i = 0; i < 2; ++i)
      e.add_thread([] {
        step();
        step();
      });
  };
  const Explorer::Check check = [] { return std::string(); };
  EXPECT_EQ(explorer.explore(0, setup, check).runs, 1U);
  // A delay before each of the four steps; at the last two there is nobody left to stand back for.
  EXPECT_EQ(explorer.explore(1, setup, check).runs, 5U);
}

/// Who finds that the other was faster waits for nothing.
TEST(Explorer, a_thread_that_waits_for_ever_is_a_failure) {
  Explorer explorer;
  bool is_set[2] = {};
  const auto setup = [&](Explorer& e) {
    is_set[0] = is_set[1] = false;
    for (int i = 0; i < 2; ++i)
      e.add_thread([&is_set, i] {
        step();
        if (is_set[1 - i]) Explorer::running().wait_until([] { return false; });
        is_set[i] = true;
        Explorer::changed();
      });
  };
  EXPECT_NE(explorer.explore(0, setup, [] { return std::string(); }).failure.find("nothing happens"),
            std::string::npos);
}

TEST(Explorer, who_sleeps_is_woken_by_a_change_and_by_time) {
  Explorer explorer;
  bool is_set = false;
  int looks = 0;
  const auto setup = [&](Explorer& e) {
    is_set = false;
    looks = 0;
    e.add_thread([&] { Explorer::running().wait_until([&] { return ++looks, is_set; }); });
    e.add_thread([&] {
      for (int i = 0; i < 5; ++i) Explorer::running().sleep();
      is_set = true;
      Explorer::changed();
    });
  };
  // Once by each passing of time, once in the beginning and once by the change.
  const auto check = [&] { return std::string(looks <= 7 ? "" : "woken too often"); };
  EXPECT_EQ(explorer.explore(2, setup, check).failure, "");
}

/// Its delays are what a sample is about.
TEST(Explorer, who_is_more_urgent_runs_as_soon_as_he_can) {
  Explorer explorer;
  bool is_set = false, was_late = false;
  const auto setup = [&](Explorer& e) {
    is_set = was_late = false;
    e.add_thread([&] {
      Explorer::running().wait_until([&] { return is_set; });
      is_set = false;
    });
    e.add_thread([&] {
      step();
      is_set = true;
      Explorer::changed();
      step();
      was_late = is_set;
      Explorer::changed();
    });
  };
  // Of the two, each is the more urgent one in some runs.
  bool is_ever_late = false, is_ever_in_time = false;
  explorer.sample(100, 0, setup, [&] {
    (was_late ? is_ever_late : is_ever_in_time) = true;
    return std::string();
  });
  EXPECT_TRUE(is_ever_late && is_ever_in_time);
}

TEST(Explorer, a_run_that_does_not_end_is_a_failure) {
  Explorer explorer;
  const auto setup = [](Explorer& e) {
    e.add_thread([] {
      for (;;) step();
    });
  };
  EXPECT_NE(explorer.explore(0, setup, [] { return std::string(); }).failure.find("does not end"),
            std::string::npos);
}

}  // namespace
}  // namespace aprime::explored
