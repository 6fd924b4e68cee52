#include "tests/stress/call_actor.hpp"

#include <algorithm>

namespace aprime::stress {

CallActor::CallActor(Board& board, std::uint8_t owner, unsigned actor, Random random)
    : board_(board),
      shadow_(board.shadow()),
      me_(owner),
      actor_(actor),
      random_(random),
      looks_(std::max<std::uint64_t>(2 * shadow_.granule_words(), 1024)),
      buffer_(looks_.size()) {}

Cell* CallActor::find_mine(std::uint64_t start, std::uint64_t end) {
  Cell* word = nullptr;
  for (std::uint64_t i = start; i < std::min(start + 1024, end); ++i) {
    Cell& cell = shadow_.cell_at(i);
    if (cell.first != i || cell.owner != me_ || cell.first + cell.words > end) continue;
    if (cell.kind == CellKind::block || cell.kind == CellKind::leased) return &cell;
    if (cell.kind == CellKind::word) word = &cell;
  }
  return word;
}

std::uint64_t CallActor::any_word(std::uint64_t first, std::uint64_t words) {
  return first + random_.below(random_.one_in(2) ? std::min(words, 6 * shadow_.granule_words()) : words);
}

std::uint64_t CallActor::any_length(std::uint64_t room) {
  const std::uint64_t most = random_.one_in(8) ? looks_.size() : random_.one_in(2) ? 64 : 1;
  return std::min(random_.between(1, most), room);
}

std::span<std::uint64_t> CallActor::encode(const Cell& cell, std::uint32_t seq) {
  const std::span<std::uint64_t> values = buffer_.first(cell.words);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = Shadow::encode(cell, cell.first + i, seq);
  return values;
}

Journal::Clock::time_point CallActor::look(std::uint64_t first, std::uint64_t n, bool plain) {
  shadow_.look(first, std::span(looks_).first(n), plain);
  return Journal::Clock::now();
}

void CallActor::judge(std::uint64_t first, std::uint64_t n, Path path, bool is_atomic,
                      Journal::Clock::time_point began) {
  const std::span<std::uint64_t> values = buffer_.first(n);
  note(path, first, n, values.front(), began);
  static_cast<void>(shadow_.check(std::span(looks_).first(n), first, values, is_atomic, {actor_, path}));
}

void CallActor::note(Path path, std::uint64_t first, std::uint64_t n, std::uint64_t value,
                     Journal::Clock::time_point began) {
  board_.journal().note(actor_, path, first, n, value, began);
  ++done_;
}

void CallActor::before_sync(std::uint64_t first, std::uint64_t n) {
  synced_.clear();
  for (std::uint64_t w = first; w < first + n; ++w) {
    Cell& cell = shadow_.cell_at(w);
    // A cell that begins in the range may end beyond it; an overwritten one may be zeros again.
    if (cell.first == w && cell.first + cell.words <= first + n && cell.kind != CellKind::overwritten)
      synced_.push_back({&cell, cell.floor.load()});
  }
}

void CallActor::after_sync() {
  for (const auto& [cell, floor] : synced_) {
    std::uint32_t now = cell->durable.load();
    while (now < floor && !cell->durable.compare_exchange_weak(now, floor)) {
    }
  }
}

}  // namespace aprime::stress
