#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "host/coherence/names.hpp"
#include "tests/coherence/checker.hpp"

// A checker is worth what it finds. Each row of the table is broken in every small way, and so is the engine
// that carries the steps out; the checker has to object each time.

namespace aprime::coherence::test {
namespace {

struct Equivalent {
  std::string_view what;
  std::string_view why;
};

/// Changed rows that are as good as the real ones.
constexpr std::string_view kReadersDoNoHarm =
    "nobody may store until grant_write, so readers may be sent away before the copy is made or after";
constexpr std::array kEquivalents{
    Equivalent{"shared, write by device_without: fill before revoke_others", kReadersDoNoHarm},
    Equivalent{"device_exclusive, write by device_without: fill before revoke_others", kReadersDoNoHarm},
    Equivalent{"device_owned, write by device_without: fill before revoke_others", kReadersDoNoHarm},
};

struct Mutant {
  std::size_t row;
  StepList steps;
  std::string what;
};

std::string label(const Row& r) {
  return std::string(name(r.kind)) + ", " + std::string(name(r.event)) + " by " + std::string(name(r.who));
}

std::vector<Step> steps_of(const Row& r) { return {r.steps.begin(), r.steps.end()}; }

StepList list_of(const std::vector<Step>& steps) {
  StepList list;
  for (const Step s : steps) list.push_back(s);
  return list;
}

/// Every row with one step left out, and with two neighbours exchanged.
std::vector<Mutant> all_mutants() {
  std::vector<Mutant> mutants;
  const Table table;
  for (std::size_t i = 0; i < table.size(); ++i) {
    const Row& row = table.row(i);
    const std::vector<Step> steps = steps_of(row);
    for (std::size_t n = 0; n < steps.size(); ++n) {
      std::vector<Step> fewer = steps;
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(n));
      mutants.push_back({i, list_of(fewer), label(row) + ": without " + std::string(name(steps[n]))});
      if (n + 1 == steps.size() || steps[n] == steps[n + 1]) continue;
      std::vector<Step> swapped = steps;
      std::swap(swapped[n], swapped[n + 1]);
      mutants.push_back(
          {i, list_of(swapped),
           label(row) + ": " + std::string(name(steps[n + 1])) + " before " + std::string(name(steps[n]))});
    }
  }
  return mutants;
}

Table table_with(const Mutant& mutant) {
  std::vector<Row> rows(coherence::rows().begin(), coherence::rows().end());
  rows[mutant.row].steps = mutant.steps;
  return Table(rows);
}

Report check(const Model& model) {
  Scenario scenario;
  scenario.model = model;
  return Checker(scenario).run();
}

TEST(Mutation, every_row_with_a_step_missing_or_out_of_order_is_found) {
  const std::vector<Mutant> mutants = all_mutants();
  std::map<std::string, std::size_t> found;
  for (const Mutant& mutant : mutants) {
    Model model;
    model.table = table_with(mutant);
    const Report report = check(model);
    const auto equivalent = std::find_if(kEquivalents.begin(), kEquivalents.end(),
                                         [&](const Equivalent& e) { return e.what == mutant.what; });
    if (equivalent != kEquivalents.end()) {
      EXPECT_FALSE(report.failure) << "not equivalent after all: " << mutant.what << "\n"
                                   << report.failure->to_string();
      ++found["(equivalent: " + std::string(equivalent->why) + ")"];
    } else {
      EXPECT_TRUE(report.failure) << "survived: " << mutant.what;
      if (report.failure) ++found[report.failure->promise];
    }
  }
  std::printf("%zu changed rows\n", mutants.size());
  for (const auto& [promise, count] : found) std::printf("%6zu  %s\n", count, promise.c_str());
  RecordProperty("mutants", static_cast<int>(mutants.size()));
}

TEST(Mutation, every_row_that_is_missing_is_found) {
  const Table real;
  for (std::size_t i = 0; i < real.size(); ++i) {
    std::vector<Row> rows(coherence::rows().begin(), coherence::rows().end());
    rows.erase(rows.begin() + static_cast<std::ptrdiff_t>(i));
    Model model;
    model.table = Table(rows);
    const Report report = check(model);
    ASSERT_TRUE(report.failure) << "survived: no row for " << label(real.row(i));
    EXPECT_EQ(report.failure->promise, "no row for this case");
  }
}

struct EngineDefect {
  Defect defect;
  std::string_view what;
  std::string_view promise;
};

class MutationOfEngine : public testing::TestWithParam<EngineDefect> {};

TEST_P(MutationOfEngine, is_found) {
  Scenario scenario;
  scenario.model.defect = GetParam().defect;
  if (GetParam().defect == Defect::eviction_waits) {
    scenario.granules = 2;
    scenario.frames = 1;
  } else {
    scenario.leases = {Lease{Party::cpu, true}, Lease{Party::device_0, false}};
  }
  const Report report = Checker(scenario).run();
  ASSERT_TRUE(report.failure);
  EXPECT_EQ(report.failure->promise, GetParam().promise) << report.failure->to_string();
  EXPECT_GT(report.failure->trace.size(), 1u);
}

INSTANTIATE_TEST_SUITE_P(
    , MutationOfEngine,
    testing::Values(EngineDefect{Defect::pins_ignored, "pins_ignored", "a lease has lost its right"},
                    EngineDefect{Defect::host_pins_ignored, "host_pins_ignored",
                                 "a lease has lost its right"},
                    EngineDefect{Defect::bounce_write_ignores_pins, "bounce_write_ignores_pins",
                                 "bytes change under a lease"},
                    EngineDefect{Defect::protect_leaves_cpu_storing, "protect_leaves_cpu_storing",
                                 "an agent can store, unknown to the directory"},
                    EngineDefect{Defect::protect_leaves_device_storing, "protect_leaves_device_storing",
                                 "an agent can store, unknown to the directory"},
                    EngineDefect{Defect::revoke_forgets_cpu, "revoke_forgets_cpu",
                                 "an agent can store, unknown to the directory"},
                    EngineDefect{Defect::revoke_forgets_devices, "revoke_forgets_devices",
                                 "an agent can load, unknown to the directory"},
                    EngineDefect{Defect::fill_maps_writable, "fill_maps_writable",
                                 "an agent can store, unknown to the directory"},
                    EngineDefect{Defect::grant_forgets_mapping, "grant_forgets_mapping",
                                 "the transaction has not done what it was for"},
                    EngineDefect{Defect::error_of_copy_ignored, "error_of_copy_ignored",
                                 "lost store: home should be current"},
                    EngineDefect{Defect::recall_loses_dirty_bytes, "recall_loses_dirty_bytes",
                                 "lost store: neither the mount nor home is current"},
                    EngineDefect{Defect::recall_answers_no_read, "recall_answers_no_read",
                                 "what was begun does not end: deadlock or livelock"},
                    EngineDefect{Defect::recall_not_repeated, "recall_not_repeated",
                                 "an agent can store, unknown to the directory"},
                    EngineDefect{Defect::eviction_waits, "eviction_waits",
                                 "what was begun does not end: deadlock or livelock"}),
    [](const auto& test) { return std::string(test.param.what); });

TEST(Mutation, leases_that_pin_in_different_orders_wait_for_each_other) {
  Scenario scenario;
  scenario.model.mount = false;
  scenario.granules = 2;
  scenario.leases = {Lease{Party::cpu, true}, Lease{Party::device_0, true, true}};
  const Report report = Checker(scenario).run();
  ASSERT_TRUE(report.failure);
  EXPECT_EQ(report.failure->promise, "what was begun does not end: deadlock or livelock");
}

}  // namespace
}  // namespace aprime::coherence::test
