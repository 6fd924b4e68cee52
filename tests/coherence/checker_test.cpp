#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>

#include "host/coherence/names.hpp"
#include "tests/coherence/checker.hpp"
#include "tests/test_scale.hpp"

// The proof that the protocol is right: every interleaving of CPU threads, two devices, a mount, bounced and
// migrating reads and writes, writeback, direct I/O, eviction, discard and leases, with failures at each
// step.

namespace aprime::coherence::test {
namespace {

/// Sanitizers cost a factor of ten: there, the larger explorations leave out what the smaller ones have seen.
bool everything() { return aprime::test::scaled(16) == 16; }

Report explore(const Scenario& scenario) {
  const auto begin = std::chrono::steady_clock::now();
  const Report report = Checker(scenario).run();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::printf("%zu states (%zu of one granule, %zu at rest), %zu transitions, %.2f s\n", report.states,
              report.granule_states, report.quiet_states, report.transitions, took.count());
  testing::Test::RecordProperty("states", std::to_string(report.states));
  testing::Test::RecordProperty("transitions", std::to_string(report.transitions));
  testing::Test::RecordProperty("seconds", std::to_string(took.count()));
  if (report.failure) ADD_FAILURE() << report.failure->to_string();
  return report;
}

void expect_every_row_used(const Report& report) {
  const Table table;
  for (std::size_t i = 0; i < table.size(); ++i)
    EXPECT_TRUE(report.rows_used[i]) << "never completed: " << name(table.row(i).kind) << ", "
                                     << name(table.row(i).event) << " by " << name(table.row(i).who);
}

TEST(Checker, one_granule_with_everything_and_three_leases) {
  Scenario scenario;
  scenario.leases = {Lease{Party::cpu, true}, Lease{Party::device_0, false}, Lease{Party::device_1, true}};
  const Report report = explore(scenario);
  expect_every_row_used(report);
  EXPECT_GT(report.states, 1000u);
}

TEST(Checker, two_granules_with_everything_and_one_frame_in_each_device) {
  Scenario scenario;
  scenario.granules = 2;
  scenario.frames = 1;
  const Report report = explore(scenario);
  expect_every_row_used(report);
  EXPECT_GT(report.states, 100'000u);
}

TEST(Checker, two_granules_with_everything_and_transactions_over_both) {
  Scenario scenario;
  scenario.granules = 2;
  scenario.frames = 1;
  scenario.model.ranges = true;
  scenario.model.mount = everything();
  EXPECT_GT(explore(scenario).states, 100'000u);
}

TEST(Checker, two_granules_and_a_cpu_lease_over_both) {
  Scenario scenario;
  scenario.granules = 2;
  scenario.frames = 1;
  scenario.model.mount = everything();
  scenario.leases = {Lease{Party::cpu, true}};
  EXPECT_GT(explore(scenario).states, 100'000u);
}

TEST(Checker, two_granules_and_leases_of_cpu_and_device_and_transactions_over_both) {
  Scenario scenario;
  scenario.granules = 2;
  scenario.model.mount = false;
  scenario.model.ranges = everything();
  scenario.leases = {Lease{Party::cpu, true}, Lease{Party::device_0, true}};
  EXPECT_GT(explore(scenario).states, 100'000u);
}

}  // namespace
}  // namespace aprime::coherence::test
