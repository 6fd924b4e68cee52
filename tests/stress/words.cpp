#include <algorithm>
#include <atomic>

#include "aprime/kernel.hpp"
#include "tests/stress/board.hpp"

namespace aprime::stress {

std::uint64_t pick_word(Shadow& shadow, std::uint64_t first, std::uint64_t count, std::uint8_t me,
                        Random& random) {
  const std::uint64_t start = random.below(count);
  if (random.one_in(2)) return first + start;
  for (std::uint64_t i = start; i < std::min(start + 48, count); ++i) {
    const Cell& cell = shadow.cell_at(first + i);
    if (cell.kind == CellKind::counter || (cell.kind == CellKind::word && cell.owner == me)) return first + i;
  }
  return first + start;
}

void touch_word(Board& board, std::uint64_t* at, std::uint64_t word, std::uint8_t me, unsigned actor,
                bool on_device, bool may_store, Random& random) {
  Shadow& shadow = board.shadow();
  Cell& cell = shadow.cell_at(word);
  const auto began = Journal::Clock::now();
  const bool owner = cell.kind == CellKind::word && cell.owner == me;
  const bool adds = cell.kind == CellKind::counter;
  if (may_store && owner && !random.one_in(3)) {
    const std::uint32_t seq = Shadow::begin_store(cell);
    const std::uint64_t value = Shadow::encode(cell, word, seq);
    if (!board.lose_this_store(random)) std::atomic_ref(*at).store(value, std::memory_order_release);
    Shadow::end_store(cell, seq);
    board.journal().note(actor, on_device ? Path::device_store : Path::host_store, word, 1, value, began);
    return;
  }
  if (may_store && adds && !random.one_in(3)) {
    const Path path = on_device ? Path::device_add : Path::host_add;
    const Shadow::Look look = shadow.look(word);
    cell.ceiling.fetch_add(1, std::memory_order_acq_rel);
    const std::uint64_t value =
        1 + (on_device ? atomicAdd(reinterpret_cast<unsigned long long*>(at), 1)
                       : std::atomic_ref(*at).fetch_add(1, std::memory_order_acq_rel));
    board.journal().note(actor, path, word, 1, value, began);
    if (shadow.check(look, word, value, {actor, path})) cell.floor.fetch_add(1, std::memory_order_acq_rel);
    return;
  }
  const Path path = on_device ? Path::device_load : Path::host_load;
  const Shadow::Look look = shadow.look(word);
  const std::uint64_t value = std::atomic_ref(*at).load(std::memory_order_acquire);
  board.journal().note(actor, path, word, 1, value, began);
  static_cast<void>(shadow.check(look, word, value, {actor, path}));
}

}  // namespace aprime::stress
