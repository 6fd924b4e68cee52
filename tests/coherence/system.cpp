#include "tests/coherence/system.hpp"

#include <algorithm>
#include <cassert>
#include <utility>

namespace aprime::coherence::test {
namespace {

constexpr std::size_t device_number(Party p) noexcept { return p == Party::device_1 ? 1 : 0; }

constexpr Right needed(const Lease& l) noexcept { return l.write ? Right::write : Right::read; }

}  // namespace

System::System(Scenario scenario) : scenario_(std::move(scenario)) {
  assert(scenario_.granules == 1 || scenario_.granules == 2);
  assert(scenario_.leases.size() <= State{}.lease.size());
  for ([[maybe_unused]] const Lease& l : scenario_.leases)
    assert(!is_device(l.agent) || scenario_.frames >= scenario_.granules);
}

System::Id System::intern(const Granule& granule) {
  const auto [it, is_new] = ids_.try_emplace(granule.key(), static_cast<Id>(locals_.size()));
  const Id id = it->second;
  if (!is_new) return id;
  const Model& m = scenario_.model;
  locals_.push_back({granule,
                     Model::broken_invariant(granule),
                     0,
                     false,
                     {m.uses_frame(granule, 0), m.uses_frame(granule, 1)},
                     {m.wants_frame(granule, 0), m.wants_frame(granule, 1)},
                     {}});
  const Id swapped = intern(granule.with_devices_swapped());
  locals_[id].swapped = swapped;
  return id;
}

System::Local& System::expanded(Id id) {
  Local& l = locals_[id];
  if (l.expanded) return l;
  l.expanded = true;
  for (const Edge& e : scenario_.model.edges(l.granule)) l.links.push_back({intern(e.next), e, false});
  return l;
}

System::State System::initial() {
  State s;
  for (unsigned g = 0; g < scenario_.granules; ++g) s.at[g] = intern(Granule{});
  return s;
}

System::Key System::pack(const State& s) const noexcept {
  Key key = s.at[0] | static_cast<Key>(s.at[1]) << 24;
  for (std::size_t i = 0; i < s.lease.size(); ++i) key |= static_cast<Key>(s.lease[i]) << (48 + 2 * i);
  return key;
}

System::State System::unpack(Key key) const noexcept {
  State s;
  s.at = {static_cast<Id>(key & 0xffffff), static_cast<Id>(key >> 24 & 0xffffff)};
  for (std::size_t i = 0; i < s.lease.size(); ++i)
    s.lease[i] = static_cast<std::uint8_t>(key >> (48 + 2 * i) & 3);
  return s;
}

System::Key System::canonical(const State& s) const {
  const bool granules_alike = scenario_.granules == 2 && scenario_.leases.empty() && !scenario_.model.ranges;
  const bool devices_alike = std::none_of(scenario_.leases.begin(), scenario_.leases.end(),
                                          [](const Lease& l) { return is_device(l.agent); });
  Key least = pack(s);
  State t = s;
  for (int exchanged = 0; exchanged < (devices_alike ? 2 : 1); ++exchanged) {
    if (exchanged == 1)
      for (unsigned g = 0; g < scenario_.granules; ++g) t.at[g] = locals_[t.at[g]].swapped;
    least = std::min(least, pack(t));
    if (!granules_alike) continue;
    State u = t;
    std::swap(u.at[0], u.at[1]);
    least = std::min(least, pack(u));
  }
  return least;
}

unsigned System::granule_of(const Lease& lease, unsigned nth) const noexcept {
  return lease.descending ? scenario_.granules - 1 - nth : nth;
}

bool System::pins(const State& s, std::size_t lease, unsigned g) const noexcept {
  return s.lease[lease] > 1u + granule_of(scenario_.leases[lease], g);
}

bool System::frame_free(const State& s, std::size_t device) const {
  unsigned used = 0;
  for (unsigned g = 0; g < scenario_.granules; ++g) used += locals_[s.at[g]].uses_frame[device];
  return used < scenario_.frames;
}

bool System::quiet(const State& s) const {
  for (unsigned g = 0; g < scenario_.granules; ++g)
    if (!locals_[s.at[g]].granule.is_quiet()) return false;
  return s.lease == State{}.lease;
}

std::string_view System::broken(const State& s) const {
  for (unsigned g = 0; g < scenario_.granules; ++g)
    if (const std::string_view promise = locals_[s.at[g]].broken; !promise.empty()) return promise;
  for (std::size_t i = 0; i < scenario_.leases.size(); ++i) {
    const Lease& lease = scenario_.leases[i];
    for (unsigned g = 0; g < scenario_.granules; ++g)
      if (pins(s, i, g) && locals_[s.at[g]].granule.right_of(lease.agent) < needed(lease))
        return "a lease has lost its right";
  }
  return {};
}

/// Whether starting a transaction on `g` is a part of something that was begun before: a lease needs the
/// right, another granule's transaction needs the frame, or a range is to be completed.
bool System::wanted(const State& s, const Edge& e, unsigned g) const {
  if (e.range) return g == 1;
  const Party party = e.label.party;
  if (e.label.event == Event::evict) {
    const std::size_t device = device_number(party);
    return scenario_.granules == 2 && locals_[s.at[1 - g]].wants_frame[device] &&
           locals_[s.at[g]].uses_frame[device] && !frame_free(s, device);
  }
  for (std::size_t i = 0; i < scenario_.leases.size(); ++i) {
    const Lease& lease = scenario_.leases[i];
    if (s.lease[i] == 0 || s.lease[i] == 1 + scenario_.granules) continue;
    if (granule_of(lease, s.lease[i] - 1u) == g && lease.agent == party &&
        e.label.event == (lease.write ? Event::write : Event::read) &&
        locals_[s.at[g]].granule.right_of(party) < needed(lease))
      return true;
  }
  return false;
}

bool System::is_pinned(const State& s, unsigned g, PinsInTheWay whose) const {
  for (std::size_t i = 0; i < scenario_.leases.size(); ++i)
    if (pins(s, i, g) && (whose == PinsInTheWay::of_all || agent_of(scenario_.leases[i].agent).is_device()))
      return true;
  return false;
}

bool System::possible(const State& s, unsigned g, const Edge& e) const {
  if (e.waits_for != PinsInTheWay::none && is_pinned(s, g, e.waits_for)) return false;
  if (e.needs_frame || e.only_without_frame)
    if (frame_free(s, device_number(e.label.party)) != e.needs_frame) return false;
  if (!e.range) return true;
  // Ascending: the second granule when the first is held.
  const Granule& other = locals_[s.at[1 - g]].granule;
  return g == 0 ? !other.range && !other.held : other.held;
}

void System::add_granule(const State& s, unsigned g, std::vector<Move>& into) {
  for (Link& link : expanded(s.at[g]).links) {
    const Edge& e = link.edge;
    if (!possible(s, g, e)) continue;
    Move& move = into.emplace_back(Move{s, e.label, e.will, g, e.violation});
    move.next.at[g] = link.next;
    if (e.will == Will::request && wanted(s, e, g)) move.will = Will::completion;
    if (e.changes_copy && is_pinned(s, g, PinsInTheWay::of_all))
      move.violation = "bytes change under a lease";
    link.used = true;
  }
}

void System::add_leases(const State& s, std::vector<Move>& into) const {
  for (std::size_t i = 0; i < scenario_.leases.size(); ++i) {
    const Lease& lease = scenario_.leases[i];
    Move move{s, {}, Will::completion, 0, {}};
    move.label.party = lease.agent;
    if (s.lease[i] == 0) {
      move.label.act = Act::lease_asked;
      move.will = Will::request;
      move.next.lease[i] = 1;
    } else if (s.lease[i] == 1 + scenario_.granules) {
      move.label.act = Act::lease_released;
      move.next.lease[i] = 0;
    } else {
      move.granule = granule_of(lease, s.lease[i] - 1u);
      const GranuleWord word = locals_[s.at[move.granule]].granule.word;
      const GranuleState state = word.state();
      const AgentId agent = agent_of(lease.agent);
      if (word.busy() || !(lease.write ? state.may_write(agent) : state.may_read(agent))) continue;
      move.label.act = Act::lease_pinned;
      ++move.next.lease[i];
    }
    into.push_back(move);
  }
}

void System::add_range_end(const State& s, std::vector<Move>& into) {
  if (scenario_.granules != 2) return;
  Move move{s, {}, Will::completion, 0, {}};
  move.label.act = Act::range_released;
  for (unsigned g = 0; g < 2; ++g) {
    Granule granule = locals_[s.at[g]].granule;
    if (!granule.held) return;
    granule.held = false;
    granule.word = GranuleWord{}.with_state(granule.word.state());
    move.next.at[g] = intern(granule);
  }
  into.push_back(move);
}

void System::moves(const State& s, std::vector<Move>& into) {
  into.clear();
  for (unsigned g = 0; g < scenario_.granules; ++g) add_granule(s, g, into);
  add_leases(s, into);
  add_range_end(s, into);
}

std::string System::describe(const State& s) const {
  std::string text;
  for (unsigned g = 0; g < scenario_.granules; ++g)
    text += " [" + std::to_string(g) + ": " + locals_[s.at[g]].granule.to_string() + "]";
  return text;
}

std::string System::describe(const Move& move) const {
  return "granule " + std::to_string(move.granule) + ": " + move.label.to_string();
}

std::vector<bool> System::rows_used() const {
  std::vector<bool> used(scenario_.model.table.size());
  for (const Local& l : locals_)
    for (const Link& link : l.links)
      if (link.used && link.edge.row != Granule::kNoRow) used[link.edge.row] = true;
  return used;
}

}  // namespace aprime::coherence::test
