#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tests/stress/places.hpp"
#include "tests/stress/plan_kernels.hpp"
#include "tests/stress/world.hpp"

namespace aprime::stress {

/// What the threads of one launch are to do, drawn before the launch, and the judge of what they saw: for
/// kernels that cannot reach the model. Stores have begun when they are drawn, and have ended when they are
/// judged. Plans of one device are drawn, run and judged in the same order.
class Plan {
 public:
  Plan(World& world, unsigned device) : world_(world), device_(device) {}

  /// One more visit, of the lane whose turn it is.
  void add_visit(Part part, bool stores, Random& random);
  std::span<const Visit> visits() const noexcept { return visits_; }
  /// `seen` is what the launch that began then has made of the visits.
  void judge(std::span<const Visit> seen, Journal::Clock::time_point began);

 private:
  Step draw(std::uint64_t word, std::uint8_t me, bool stores, Shadow::Look& look, Random& random);
  void judge_visit(std::size_t number, const Visit& seen, Journal::Clock::time_point began);

  World& world_;
  const unsigned device_;
  std::vector<Visit> visits_;
  /// For each step what the model said when it was drawn.
  std::vector<Shadow::Look> looks_;
};

}  // namespace aprime::stress
