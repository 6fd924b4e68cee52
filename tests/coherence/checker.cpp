#include "tests/coherence/checker.hpp"

#include <algorithm>
#include <cassert>
#include <unordered_set>
#include <utility>

namespace aprime::coherence::test {
namespace {

constexpr std::uint64_t mixed(std::uint64_t x) noexcept {  // the finaliser of SplitMix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

std::string Failure::to_string() const {
  std::string text = promise;
  for (const std::string& line : trace) text += "\n  " + line;
  return text;
}

Checker::Checker(Scenario scenario) : system_(std::move(scenario)), slots_(std::size_t{1} << 12, kAbsent) {}

bool Checker::find(Key key, Index& at, std::size_t& slot) const noexcept {
  for (slot = mixed(key) & (slots_.size() - 1);; slot = (slot + 1) & (slots_.size() - 1)) {
    at = slots_[slot];
    if (at == kAbsent) return false;
    if (states_[at] == key) return true;
  }
}

void Checker::discover(Key key, Index parent) {
  Index at;
  std::size_t slot;
  if (find(key, at, slot)) return;
  slots_[slot] = static_cast<Index>(states_.size());
  states_.push_back(key);
  parents_.push_back(parent);
  if (states_.size() * 2 < slots_.size()) return;
  slots_.assign(slots_.size() * 2, kAbsent);
  for (Index i = 0; i < states_.size(); ++i) {
    find(states_[i], at, slot);
    slots_[slot] = i;
  }
}

bool Checker::explore(Report& report) {
  discover(system_.canonical(system_.initial()), kAbsent);
  for (Index i = 0; i < states_.size() && !report.failure; ++i) {
    system_.moves(system_.unpack(states_[i]), moves_);
    for (const Move& move : moves_) {
      ++report.transitions;
      const std::string_view promise = move.violation.empty() ? system_.broken(move.next) : move.violation;
      if (!promise.empty()) {
        report.failure = failure(promise, i, &move);
        break;
      }
      discover(system_.canonical(move.next), i);
    }
  }
  report.states = states_.size();
  return !report.failure;
}

std::vector<Checker::Index> Checker::completions(Index of) {
  std::vector<Index> found;
  system_.moves(system_.unpack(states_[of]), moves_);
  for (const Move& move : moves_) {
    if (move.will != Will::completion) continue;
    Index at;
    std::size_t slot;
    find(system_.canonical(move.next), at, slot);
    found.push_back(at);
  }
  return found;
}

/// Depth first along completions. For every schedule: no way may be endless, or end in a state that is not
/// quiet. For fair schedules: from each state some way leads to a quiet one.
bool Checker::comes_to_rest(Report& report) {
  const bool some_way_is_enough = !system_.scenario().leases.empty();
  enum Mark : std::uint8_t { unseen, on_way, rests };
  struct Visit {
    Index state;
    std::vector<Index> next;
  };
  std::vector<Mark> marks(states_.size(), unseen);
  for (Index i = 0; i < states_.size(); ++i)
    if (system_.quiet(system_.unpack(states_[i]))) {
      marks[i] = rests;
      ++report.quiet_states;
    }
  std::vector<Visit> way;
  std::vector<Index> given_up;
  const auto enter = [&](Index i) {
    marks[i] = on_way;
    way.push_back({i, completions(i)});
    return !way.back().next.empty();
  };
  for (Index root = 0; root < states_.size(); ++root) {
    if (marks[root] != unseen) continue;
    bool good = enter(root);
    while (good && !way.empty()) {
      Visit& here = way.back();
      if (here.next.empty()) {  // all ways from here have been seen
        if (some_way_is_enough)
          given_up.push_back(here.state);
        else
          marks[here.state] = rests;
        way.pop_back();
        continue;
      }
      const Index next = here.next.back();
      here.next.pop_back();
      if (marks[next] == unseen) {
        good = enter(next) || some_way_is_enough;
      } else if (some_way_is_enough && marks[next] == rests) {
        for (const Visit& v : way) marks[v.state] = rests;
        way.clear();
      } else if (!some_way_is_enough && marks[next] == on_way) {
        good = false;
      }
    }
    for (const Index i : given_up) marks[i] = unseen;  // to be seen again when more is known
    given_up.clear();
    if (good && marks[root] == rests) continue;
    const Index at = first_stuck(way.empty() ? root : way.back().state);
    report.failure = failure("what was begun does not end: deadlock or livelock", at, nullptr);
    return false;
  }
  return true;
}

/// The first state that waits although nothing can happen; `otherwise` if there is none.
Checker::Index Checker::first_stuck(Index otherwise) {
  for (Index i = 0; i < states_.size(); ++i)
    if (!system_.quiet(system_.unpack(states_[i])) && completions(i).empty()) return i;
  return otherwise;
}

/// Searches the completions that follow `request` for its fulfilment. The states in between have their true
/// names.
bool Checker::fulfils(const Move& request) {
  const Label& asked = request.label;
  if (asked.act == Act::nothing_to_do) return true;
  const auto fulfilled = [&](const Move& m) {
    switch (asked.act) {
      case Act::read_upcall: return m.label.act == Act::read_arrives && m.granule == request.granule;
      case Act::lease_asked: return m.label.act == Act::lease_released && m.label.party == asked.party;
      default: break;
    }
    if (m.label.act == Act::range_released) return true;
    return m.label.act == Act::release && m.granule == request.granule && m.label.event == asked.event &&
           m.label.party == asked.party;
  };
  std::unordered_set<Key> seen{system_.pack(request.next)};
  std::vector<State> open{request.next};
  std::vector<Move> moves;
  while (!open.empty()) {
    system_.moves(open.back(), moves);
    open.pop_back();
    for (const Move& m : moves) {
      if (m.will != Will::completion) continue;
      if (fulfilled(m)) return true;
      if (seen.insert(system_.pack(m.next)).second) open.push_back(m.next);
    }
  }
  return false;
}

bool Checker::serves(Report& report) {
  for (Index i = 0; i < states_.size(); ++i) {
    const State s = system_.unpack(states_[i]);
    if (!system_.quiet(s)) continue;
    system_.moves(s, moves_);
    for (const Move& request : moves_) {
      if (request.will != Will::request || fulfils(request)) continue;
      report.failure = failure("a request that can never be fulfilled", i, &request);
      return false;
    }
  }
  return true;
}

Report Checker::run() {
  Report report;
  if (explore(report) && comes_to_rest(report)) serves(report);
  report.granule_states = system_.granule_states();
  report.rows_used = system_.rows_used();
  return report;
}

Failure Checker::failure(std::string_view promise, Index at, const Move* last) {
  std::vector<Key> way;
  for (Index i = at; i != kAbsent; i = parents_[i]) way.push_back(states_[i]);
  std::reverse(way.begin(), way.end());
  // The states on the way are known up to symmetry: walk it again with true names.
  Failure f{std::string(promise), {}};
  State now = system_.initial();
  f.trace.push_back("at first" + system_.describe(now));
  std::vector<Move> moves;
  const auto walk = [&](auto&& is_it) {
    system_.moves(now, moves);
    const auto it = std::find_if(moves.begin(), moves.end(), is_it);
    assert(it != moves.end());
    now = it->next;
    f.trace.push_back(system_.describe(*it) + system_.describe(now));
  };
  for (std::size_t n = 1; n < way.size(); ++n)
    walk([&](const Move& m) { return system_.canonical(m.next) == way[n]; });
  if (last != nullptr) {
    const Move wrong = *last;  // `last` may be one of `moves_`
    walk([&](const Move& m) {
      return system_.canonical(m.next) == system_.canonical(wrong.next) && m.label.act == wrong.label.act &&
             m.violation == wrong.violation;
    });
  }
  return f;
}

}  // namespace aprime::coherence::test
