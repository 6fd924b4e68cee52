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
      e.thread([&] {
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
      e.thread([] {
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
      e.thread([&is_set, i] {
        step();
        if (is_set[1 - i]) Explorer::running().wait_until([] { return false; });
        is_set[i] = true;
        Explorer::running().changed();
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
    e.thread([&] { Explorer::running().wait_until([&] { return is_set; }); });
    e.thread([&] {
      while (++looks < 5) Explorer::running().sleep();
      is_set = true;
      Explorer::running().changed();
    });
  };
  EXPECT_EQ(
      explorer.explore(2, setup, [&] { return std::string(looks == 5 ? "" : "woken too often"); }).failure,
      "");
}

TEST(Explorer, a_run_that_does_not_end_is_a_failure) {
  Explorer explorer;
  const auto setup = [](Explorer& e) {
    e.thread([] {
      for (;;) step();
    });
  };
  EXPECT_NE(explorer.explore(0, setup, [] { return std::string(); }).failure.find("does not end"),
            std::string::npos);
}

}  // namespace
}  // namespace aprime::explored
