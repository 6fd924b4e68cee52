#include "tests/stress/plan.hpp"

#include <array>

namespace aprime::stress {
namespace {

/// No word is ever this.
constexpr std::uint64_t kUnseen = ~std::uint64_t{0};

Path path_of(StepKind kind) noexcept {
  switch (kind) {
    case StepKind::load: return Path::device_load;
    case StepKind::add: return Path::device_add;
    case StepKind::store:
    case StepKind::lost_store: break;
  }
  return Path::device_store;
}

}  // namespace

void Plan::add_visit(Part part, bool stores, Random& random) {
  Shadow& shadow = world_.shadow();
  const std::uint8_t me = shadow.lane_owner(device_, static_cast<unsigned>(visits_.size() % shadow.lanes()));
  Visit visit{.first = part.first,
              .words = static_cast<std::uint32_t>(part.words),
              .stores = stores ? 1U : 0U,
              .steps = {}};
  looks_.resize(looks_.size() + Visit::kSteps);
  const std::span<Shadow::Look> looks = std::span(looks_).last(Visit::kSteps);
  for (std::size_t s = 0; s < Visit::kSteps;) {
    const std::uint64_t word = pick_word(shadow, part.first, part.words, me, random);
    visit.steps[s] = draw(word, me, stores, looks[s], random);
    ++s;
    // What of a block that the host writes by one call is here.
    const Cell& cell = shadow.cell_at(word);
    if (cell.kind != CellKind::block || !random.one_in(4)) continue;
    const bool backwards = random.one_in(2);
    for (std::uint64_t i = 0; i < cell.words && s < Visit::kSteps; ++i) {
      const std::uint64_t w = from_edges(cell, i, backwards);
      if (w < part.first || w >= part.first + part.words) continue;
      visit.steps[s] = draw(w, me, stores, looks[s], random);
      ++s;
    }
  }
  visits_.push_back(visit);
}

Step Plan::draw(std::uint64_t word, std::uint8_t me, bool stores, Shadow::Look& look, Random& random) {
  Shadow& shadow = world_.shadow();
  Cell& cell = shadow.cell_at(word);
  const auto number = static_cast<std::uint32_t>(word);
  const bool is_mine = cell.kind == CellKind::word && cell.owner == me;
  look = shadow.look(word);
  if (stores && is_mine && !random.one_in(3)) {
    const std::uint64_t value = Shadow::encode(cell, word, Shadow::begin_store(cell));
    const bool is_lost = world_.board().lose_this_store(random);
    return {is_lost ? StepKind::lost_store : StepKind::store, number, value};
  }
  if (stores && cell.kind == CellKind::counter && !random.one_in(3)) {
    cell.ceiling.fetch_add(1, std::memory_order_acq_rel);
    return {StepKind::add, number, kUnseen};
  }
  // All stores to it that were drawn come before.
  if (is_mine) look.lowest = cell.ceiling.load(std::memory_order_relaxed);
  return {StepKind::load, number, kUnseen};
}

void Plan::judge(std::span<const Visit> seen, Journal::Clock::time_point began) {
  for (std::size_t v = 0; v < visits_.size() && !world_.shadow().failed(); ++v)
    judge_visit(v, seen[v], began);
}

void Plan::judge_visit(std::size_t number, const Visit& seen, Journal::Clock::time_point began) {
  Shadow& shadow = world_.shadow();
  const unsigned actor = world_.device_actor(device_);
  /// Of loads: what the thread sees of a cell never gets older.
  struct Seen {
    const Cell* cell;
    std::uint32_t seq;
  };
  std::array<Seen, Visit::kSteps> before{};
  for (std::size_t s = 0; s < Visit::kSteps; ++s) {
    const Step& step = visits_[number].steps[s];
    const std::uint64_t value = seen.steps[s].value;
    const Shadow::Look& look = looks_[number * Visit::kSteps + s];
    const Shadow::Reader reader{actor, path_of(step.kind)};
    Cell& cell = shadow.cell_at(step.word);
    world_.journal().note(actor, reader.path, step.word, 1, value, began);
    if (reader.path == Path::device_store) {
      Shadow::end_store(cell, Shadow::seq_of(cell, step.value));
      continue;
    }
    if (!shadow.check(look, step.word, value, reader)) return;
    if (step.kind == StepKind::add) cell.floor.fetch_add(1, std::memory_order_acq_rel);
    if (value == 0) continue;  // says nothing about its time
    const std::uint32_t seq = Shadow::seq_of(cell, value);
    for (const Seen& earlier : before)
      if (earlier.cell == &cell && !shadow.check_order(step.word, earlier.seq, seq, reader)) return;
    before[s] = {&cell, seq};
  }
}

}  // namespace aprime::stress
