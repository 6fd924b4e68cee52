#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/coherence/system.hpp"

namespace aprime::coherence::test {

struct Failure {
  std::string promise;             // what is broken
  std::vector<std::string> trace;  // the shortest way there: an action, and the state after it

  std::string to_string() const;
};

struct Report {
  std::optional<Failure> failure;
  std::size_t states = 0;  // after symmetry
  std::size_t transitions = 0;
  std::size_t granule_states = 0;
  std::size_t quiet_states = 0;
  std::vector<bool> rows_used;
};

/// Explores every interleaving, breadth first, and checks in this order:
/// 1. the invariants of `Model::broken_invariant`, and that a lease's rights hold while it pins
/// 2. rest: from every state, once nobody asks for anything new, all that was begun ends. Without leases this
/// holds
///    for every schedule; leases may take a right from each other until chance lets one pin first, so with
///    them it holds for every schedule that is fair
/// 3. service: from every state of rest, every request of every agent, and every I/O call, can be fulfilled
/// without
///    anyone's help. With 2, every agent that asks is served in the end
///
/// Neither 2 nor 3 relies on a step failing (but for a device that has no frame left, which gives up), nor on
/// anyone storing or asking.
class Checker {
 public:
  explicit Checker(Scenario scenario);

  Report run();

 private:
  using Key = System::Key;
  using State = System::State;
  using Move = System::Move;
  using Index = std::uint32_t;  // of a whole state, in the order of discovery
  static constexpr Index kAbsent = 0xffffffff;

  /// Whether `key` is known, and then its index; where it belongs in `slots_`.
  bool find(Key key, Index& at, std::size_t& slot) const noexcept;
  void discover(Key key, Index parent);
  bool explore(Report&);
  std::vector<Index> completions(Index of);
  bool comes_to_rest(Report&);
  Index first_stuck(Index otherwise);
  bool serves(Report&);
  bool fulfils(const Move& request);
  Failure failure(std::string_view promise, Index at, const Move* last);

  System system_;
  std::vector<Move> moves_;
  std::vector<Key> states_;
  std::vector<Index> parents_;
  std::vector<Index> slots_;
};

}  // namespace aprime::coherence::test
