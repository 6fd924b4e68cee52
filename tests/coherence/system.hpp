#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/coherence/model.hpp"

namespace aprime::coherence::test {

/// A right held over all granules while a kernel or a system call runs: each granule in turn is made
/// accessible and pinned, in ascending order, and all are let go at the end.
struct Lease {
  Party agent = Party::cpu;
  bool write = false;
  bool descending = false;  // a defect: two leases may wait for each other
};

/// What is explored. Everything of `Model` happens on each granule.
struct Scenario {
  Model model{};
  unsigned granules = 1;        // one or two
  unsigned frames = 2;          // of each device; fewer than granules: eviction
  std::vector<Lease> leases{};  // three at most; a device's lease needs a frame for each granule
};

/// One or two granules, and what they have in common: the devices' frames, leases, transactions over a range.
/// All this is done by name of the state of a granule, which is worked out once by the model.
class System {
 public:
  using Id = std::uint32_t;   // of a granule's state
  using Key = std::uint64_t;  // of a whole state

  /// One local state for each granule, and how far each lease is (0: not asked; 1 + n: pins n granules).
  struct State {
    std::array<Id, 2> at{};
    std::array<std::uint8_t, 3> lease{};
  };
  struct Move {
    State next;
    Label label;
    Will will;
    unsigned granule;
    std::string_view violation;  // of a promise; empty if none
  };

  explicit System(Scenario scenario);

  const Scenario& scenario() const noexcept { return scenario_; }
  State initial();
  /// Everything that can happen in `s`.
  void moves(const State& s, std::vector<Move>& into);
  /// Nobody has begun anything that is not finished.
  bool quiet(const State&) const;
  /// The promise that `s` breaks; empty if none.
  std::string_view broken(const State&) const;

  Key pack(const State&) const noexcept;
  State unpack(Key) const noexcept;
  /// The same key for all states that differ in the names of devices or granules only, where the scenario
  /// knows no difference between them.
  Key canonical(const State&) const;

  std::string describe(const State&) const;
  std::string describe(const Move&) const;
  std::size_t granule_states() const noexcept { return locals_.size(); }
  /// By row of the table: whether a transaction by this row has come to its end in any move.
  std::vector<bool> rows_used() const;

 private:
  struct Link {
    Id next;
    Edge edge;
    bool used;
  };
  struct Local {
    Granule granule;
    std::string_view broken;
    Id swapped;
    bool expanded;
    std::array<bool, kDeviceCount> uses_frame, wants_frame;
    std::vector<Link> links;
  };

  Id intern(const Granule&);
  Local& expanded(Id);
  void add_granule(const State&, unsigned g, std::vector<Move>& into);
  void add_leases(const State&, std::vector<Move>& into) const;
  void add_range_end(const State&, std::vector<Move>& into);
  bool possible(const State&, unsigned g, const Edge&) const;
  bool is_pinned(const State&, unsigned g, PinsInTheWay whose) const;
  unsigned granule_of(const Lease&, unsigned nth) const noexcept;
  bool pins(const State&, std::size_t lease, unsigned g) const noexcept;
  bool wanted(const State&, const Edge&, unsigned g) const;
  bool frame_free(const State&, std::size_t device) const;

  Scenario scenario_;
  std::deque<Local> locals_;
  std::unordered_map<std::uint64_t, Id> ids_;
};

}  // namespace aprime::coherence::test
