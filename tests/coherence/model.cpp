#include "tests/coherence/model.hpp"

#include <algorithm>

namespace aprime::coherence::test {
namespace {

constexpr std::size_t device_number(Party p) noexcept { return p == Party::device_1 ? 1 : 0; }
Bytes& copy_of(Granule& g, AgentId device) { return g.copy[device.device_number()]; }
Right& right_of(Granule& g, AgentId a) { return g.right[a.is_cpu() ? 0 : 1 + a.device_number()]; }

/// The bytes at `where`, a part of `g`, become the newest. All others are stale from now on.
void store(Granule& g, Bytes& where) {
  for (Bytes* b : {&g.home, &g.copy[0], &g.copy[1], &g.cached})
    if (*b == Bytes::newest) *b = Bytes::stale;
  where = Bytes::newest;
  if (g.half && g.word.state().kind != Kind::mount_exclusive) g.torn = true;
}

/// Forgets what can no longer make a difference, so that equal situations are equal states.
void forget_the_irrelevant(Granule& g) {
  for (std::size_t d = 0; d < kDeviceCount; ++d)
    if (g.right[1 + d] == Right::none) g.copy[d] = Bytes::stale;
  if (g.cache == Cache::absent && g.read_upcall != Upcall::answered) g.cached = Bytes::stale;
  if (!g.half) g.torn = false;
}

void add(std::vector<Edge>& edges, Edge edge) {
  forget_the_irrelevant(edge.next);
  edges.push_back(edge);
}

Edge edge_to(const Granule& next, Act act, Will will) {
  Edge e;
  e.next = next;
  e.label.act = act;
  e.will = will;
  return e;
}

constexpr bool is_io(Event e) noexcept {
  return e == Event::io_read || e == Event::io_write || e == Event::bounce_read || e == Event::bounce_write ||
         e == Event::discard;
}

void answer_read(Granule& g) {
  g.read_upcall = Upcall::answered;
  g.cached = g.home;
}

/// Whether the transaction that ends in `g` has brought what it was for.
bool reached(const Granule& g, Event event, Party requester) {
  const GranuleState s = g.word.state();
  switch (event) {
    case Event::read:
      return requester == Party::mount ? s.may_read(AgentId::mount()) : g.right_of(requester) != Right::none;
    case Event::write:
    case Event::overwrite:
      return requester == Party::mount ? s.may_write(AgentId::mount())
                                       : g.right_of(requester) == Right::write;
    case Event::evict: return g.right_of(requester) == Right::none;
    case Event::writeback: return s.home_is_current() && g.home == Bytes::newest;
    case Event::discard: return s.home_is_current() && g.right[1] == Right::none && g.right[2] == Right::none;
    case Event::io_read:
    case Event::io_write:
    case Event::bounce_read:
    case Event::bounce_write: return true;  // the I/O itself is checked where it is done
  }
  return false;
}

/// The caller's I/O on home, in `before`; what it does goes to `e`.
void io_home(const Granule& before, Event event, Edge& e) {
  if (event == Event::discard) {
    if (before.word.state().home_is_current())
      store(e.next, e.next.home);
    else
      e.next.home = Bytes::pending;
  } else if (before.home != Bytes::newest) {
    e.violation = "I/O on a home that is not current";
  } else if (event == Event::io_write || event == Event::bounce_write) {
    store(e.next, e.next.home);
  }
}

/// The caller's I/O on the owner's copy.
void io_copy(const Granule& before, Event event, Edge& e) {
  Bytes& copy = copy_of(e.next, before.word.state().owner);
  if (before.torn || copy != Bytes::newest) e.violation = "I/O on a copy that is not current, or moves";
  if (event != Event::bounce_write) return;
  store(e.next, copy);
  e.changes_copy = true;
}

/// `drop` and `release` only forget, hence cannot fail.
constexpr bool can_fail(Step step) noexcept { return step != Step::drop && step != Step::release; }

}  // namespace

Step Model::step_of(const Granule& g) const noexcept { return table.row(g.row).steps.begin()[g.position]; }

bool Model::uses_frame(const Granule& g, std::size_t number) const noexcept {
  if (g.right[1 + number] != Right::none) return true;
  return g.row != Granule::kNoRow && g.half && step_of(g) == Step::fill &&
         g.requester == device_party(number);
}

bool Model::wants_frame(const Granule& g, std::size_t number) const noexcept {
  if (g.row == Granule::kNoRow || g.half || g.requester != device_party(number)) return false;
  if (g.position == table.row(g.row).steps.size()) return false;
  return step_of(g) == Step::fill || step_of(g) == Step::adopt;
}

std::vector<Edge> Model::edges(const Granule& g) const {
  Edges edges;
  add_stores(g, edges);
  if (mount) add_mount(g, edges);
  if (!g.word.busy())
    add_starts(g, edges);
  else if (!g.held)
    add_progress(g, edges);
  return edges;
}

void Model::add_stores(const Granule& g, Edges& edges) const {
  for (const Party p : {Party::cpu, Party::device_0, Party::device_1}) {
    if (g.right_of(p) != Right::write) continue;
    Edge e = edge_to(g, Act::store, Will::environment);
    e.label.party = p;
    store(e.next, p == Party::cpu ? e.next.home : e.next.copy[device_number(p)]);
    add(edges, e);
  }
}

void Model::add_mount(const Granule& g, Edges& edges) const {
  const auto happens = [&](Act act, Will will, auto change) {
    Edge e = edge_to(g, act, will);
    e.label.party = Party::mount;
    change(e.next);
    add(edges, e);
  };
  if (g.cache == Cache::absent && g.read_upcall == Upcall::none)
    happens(Act::read_upcall, Will::request, [](Granule& n) { n.read_upcall = Upcall::waiting; });
  if (g.read_upcall == Upcall::answered)
    happens(Act::read_arrives, Will::completion, [](Granule& n) {
      n.read_upcall = Upcall::none;
      n.cache = Cache::clean;
    });
  if (g.cache != Cache::absent)
    happens(Act::store, Will::environment, [](Granule& n) {
      store(n, n.cached);
      n.cache = Cache::dirty;
    });
  if (g.cache == Cache::clean)
    happens(Act::page_forgotten, Will::environment, [](Granule& n) { n.cache = Cache::absent; });
  // The kernel writes dirty pages back when it likes; a recall waits for it.
  if (g.cache == Cache::dirty)
    happens(Act::write_upcall, g.word.busy() ? Will::completion : Will::environment, [](Granule& n) {
      n.home = n.cached;
      n.cache = Cache::clean;
    });
}

void Model::add_starts(const Granule& g, Edges& edges) const {
  for (const Event event : {Event::read, Event::write, Event::overwrite}) {
    for (const Party p : {Party::cpu, Party::device_0, Party::device_1}) add_start(g, event, p, false, edges);
    if (g.read_upcall == Upcall::waiting) add_start(g, event, Party::mount, false, edges);
  }
  for (const Party p : {Party::device_0, Party::device_1}) add_start(g, Event::evict, p, false, edges);
  for (const Event event : {Event::io_read, Event::io_write, Event::bounce_read, Event::bounce_write,
                            Event::writeback, Event::discard})
    add_start(g, event, Party::cpu, false, edges);
  if (ranges)
    for (const Event event : {Event::io_write, Event::discard}) add_start(g, event, Party::cpu, true, edges);
}

void Model::add_start(const Granule& g, Event event, Party requester, bool range, Edges& edges) const {
  const GranuleState s = g.word.state();
  const AgentId agent = agent_of(requester);
  Edge e = edge_to(g, Act::start, requester == Party::mount ? Will::completion : Will::request);
  e.label.party = requester;
  e.label.event = event;
  e.label.anonymous = !is_agent_event(event);
  e.range = range;
  const auto refuse = [&](std::string_view why) {
    e.violation = why;
    edges.push_back(e);
  };
  const Row* row = table.find(s.kind, event, who_is(s, event, agent));
  if (row == nullptr) return refuse("no row for this case");
  GranuleState now = s;
  for (const Step step : row->steps) {
    if (!allows(now, step, agent)) return refuse("the row asks for a step that the door refuses");
    now = apply(now, step, agent);
  }
  if (is_io(event) && !row->steps.contains(Step::io_home) && !row->steps.contains(Step::io_copy))
    return refuse("the row never does the I/O");

  e.waits_for = pins_in_the_way(s, row->steps, event, agent);
  if (defect == Defect::pins_ignored) e.waits_for = PinsInTheWay::none;
  if (defect == Defect::host_pins_ignored && e.waits_for == PinsInTheWay::of_all)
    e.waits_for = PinsInTheWay::of_devices;
  if (defect == Defect::bounce_write_ignores_pins && event == Event::bounce_write &&
      row->steps.contains(Step::io_copy))
    e.waits_for = PinsInTheWay::none;
  const auto index = static_cast<std::uint8_t>(table.index_of(row));
  if (row->steps.empty()) {
    if (!reached(g, event, requester)) return refuse("nothing to do, but the request is not fulfilled");
    e.label.act = Act::nothing_to_do;
    e.row = index;
    if (requester == Party::mount) answer_read(e.next);
  } else {
    e.next.word = g.word.with_busy();
    e.next.row = index;
    e.next.requester = requester;
    e.next.range = range;
  }
  add(edges, e);
}

void Model::add_progress(const Granule& g, Edges& edges) const {
  if (g.position == table.row(g.row).steps.size()) return add(edges, released(g));
  const Step step = step_of(g);
  if (step == Step::protect && g.word.state().kind == Kind::mount_exclusive) {
    add_recall(g, edges);
  } else {
    const bool takes_frame = step == Step::fill || step == Step::adopt;
    const bool copies = step == Step::copy_home || step == Step::fill || step == Step::io_copy;
    if (copies && !g.half) {
      Edge e = edge_to(g, Act::begin_step, Will::completion);
      e.next.half = true;
      const Bytes source = step == Step::fill ? g.home : copy_of(e.next, g.word.state().owner);
      e.next.torn = source != Bytes::newest;
      e.needs_frame = takes_frame;
      add(edges, e);
    } else {
      Edge e = finished(g);
      e.needs_frame = step == Step::adopt;
      add(edges, e);
    }
    if (takes_frame && !g.half && defect != Defect::eviction_waits) {
      Edge e = edge_to(ended(g, false), Act::no_frame, Will::completion);
      e.only_without_frame = true;
      add(edges, e);
    }
  }
  add_failures(g, edges);
  for (Edge& e : edges) {
    if (e.label.act != Act::begin_step && e.label.act != Act::finish_step && e.label.act != Act::step_fails &&
        e.label.act != Act::no_frame)
      continue;
    e.label.step = step;
    e.label.event = event_of(g);
    e.label.party = g.requester;
    e.label.anonymous = !is_agent_event(e.label.event);
  }
}

void Model::add_recall(const Granule& g, Edges& edges) const {
  if (g.read_upcall == Upcall::waiting && defect != Defect::recall_answers_no_read) {
    Edge e = edge_to(g, Act::read_answered_in_recall, Will::completion);
    answer_read(e.next);
    e.next.slipped = true;
    add(edges, e);
  }
  if (!g.half) {
    // The invalidation waits for the lock of a page that is being read, and for dirty bytes to be delivered.
    const bool delivered = g.cache != Cache::dirty || defect == Defect::recall_loses_dirty_bytes;
    if (g.read_upcall != Upcall::none || !delivered) return;
    Edge e = edge_to(g, Act::invalidated, Will::completion);
    e.next.cache = Cache::absent;
    e.next.half = true;
    add(edges, e);
  } else if (g.slipped && defect != Defect::recall_not_repeated) {
    Edge e = edge_to(g, Act::invalidate_again, Will::completion);
    e.next.half = e.next.slipped = false;
    add(edges, e);
  } else {
    add(edges, finished(g));
  }
}

Edge Model::finished(const Granule& g) const {
  const Step step = step_of(g);
  const Event event = event_of(g);
  const AgentId requester = agent_of(g.requester);
  const GranuleState s = g.word.state();
  Edge e = edge_to(g, Act::finish_step, Will::completion);
  Granule& n = e.next;
  const auto take_from = [&](AgentSet agents) {
    for (std::size_t p = 0; p < n.right.size(); ++p)
      if (agents.contains(agent_of(static_cast<Party>(p)))) n.right[p] = Right::none;
  };
  const AgentSet cpu = AgentSet::of(AgentId::cpu());
  switch (step) {
    case Step::protect:
      if (s.kind == Kind::cpu_exclusive && defect != Defect::protect_leaves_cpu_storing)
        n.right[0] = Right::read;
      if (s.kind == Kind::device_exclusive && defect != Defect::protect_leaves_device_storing)
        right_of(n, s.owner) = Right::read;
      break;
    case Step::copy_home: n.home = g.torn ? Bytes::stale : Bytes::newest; break;
    case Step::revoke_others: {
      AgentSet others = s.holders().without(requester);
      if (defect == Defect::revoke_forgets_cpu) others = others.minus(cpu);
      take_from(defect == Defect::revoke_forgets_devices ? others & cpu : others);
      break;
    }
    case Step::revoke_devices:
      if (defect != Defect::revoke_forgets_devices) take_from(s.holders().minus(cpu));
      break;
    case Step::drop:
      right_of(n, s.owner) = Right::none;
      if (n.home == Bytes::pending) store(n, n.home);
      break;
    case Step::fill:
      right_of(n, requester) = defect == Defect::fill_maps_writable ? Right::write : Right::read;
      copy_of(n, requester) = g.torn ? Bytes::stale : Bytes::newest;
      break;
    case Step::adopt:  // the requester has promised to store every byte before it loads one: this is that
                       // store
      right_of(n, requester) = Right::write;
      store(n, copy_of(n, requester));
      break;
    case Step::grant_read: n.right[0] = Right::read; break;
    case Step::grant_write:
      if (!requester.is_mount() && defect != Defect::grant_forgets_mapping)
        right_of(n, requester) = Right::write;
      break;
    case Step::release: right_of(n, requester) = Right::none; break;
    case Step::io_home: io_home(g, event, e); break;
    case Step::io_copy: io_copy(g, event, e); break;
  }
  n.half = n.torn = n.slipped = false;
  n.word = n.word.with_state(apply(s, step, requester));
  ++n.position;
  return e;
}

void Model::add_failures(const Granule& g, Edges& edges) const {
  const Step step = step_of(g);
  if (!can_fail(step)) return;
  const auto fail = [&](Granule left_behind) {
    add(edges, edge_to(ended(left_behind, false), Act::step_fails, Will::failure));
  };
  if (step == Step::copy_home && defect == Defect::error_of_copy_ignored) {
    Edge e = finished(g);
    e.label.act = Act::step_fails;
    e.will = Will::failure;
    e.next.home = Bytes::stale;
    return add(edges, e);
  }
  fail(g);
  Granule partly = g;
  if (step == Step::copy_home && g.half) {
    partly.home = Bytes::stale;
    fail(partly);
  }
  const Event event = event_of(g);
  const bool writes = event == Event::io_write || event == Event::bounce_write || event == Event::discard;
  if (step == Step::io_home && writes) {  // a short write, or a truncate that failed after it had begun
    if (g.word.state().home_is_current())
      store(partly, partly.home);
    else
      partly.home = Bytes::stale;
    fail(partly);
  }
  if (step == Step::io_copy && event == Event::bounce_write) {
    store(partly, copy_of(partly, g.word.state().owner));
    Edge e = edge_to(ended(partly, false), Act::step_fails, Will::failure);
    e.changes_copy = true;
    add(edges, e);
  }
}

Edge Model::released(const Granule& g) const {
  const Event event = event_of(g);
  Granule done = g;
  // A discard that returns success has happened, whatever the row has left undone.
  if (event == Event::discard && done.home == Bytes::pending) store(done, done.home);
  Edge e = edge_to(ended(done, true), Act::release, Will::completion);
  e.label.event = event;
  e.label.party = g.requester;
  e.label.anonymous = !is_agent_event(event);
  e.row = g.row;
  if (!reached(done, event, g.requester)) e.violation = "the transaction has not done what it was for";
  return e;
}

Granule Model::ended(const Granule& g, bool success) const {
  Granule n = g;
  if (g.requester == Party::mount) {
    // An error is an answer too: the client's access fails, and it may ask again. A READ that was answered
    // during a recall is another story: it is on its way.
    if (success)
      answer_read(n);
    else if (n.read_upcall == Upcall::waiting)
      n.read_upcall = Upcall::none;
  }
  if (n.home == Bytes::pending) n.home = Bytes::stale;
  const GranuleWord free = g.word.released();
  n.word = GranuleWord{}.with_state(free.state());
  if (free.busy()) n.word = n.word.with_busy();
  n.held = g.range;
  if (n.held) n.word = n.word.with_busy();
  n.row = Granule::kNoRow;
  n.position = 0;
  n.requester = Party::cpu;
  n.half = n.torn = n.slipped = false;
  return n;
}

}  // namespace aprime::coherence::test
