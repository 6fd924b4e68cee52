#include "tests/stress/shadow.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace aprime::stress {
namespace {

// A value is [check 12 | word 24 | seq 28]: it says where it belongs and which store it comes from, and a
// mixture of two of them fails the check.
constexpr unsigned kSeqBits = 28;
constexpr unsigned kWordBits = 24;
constexpr std::uint64_t kSeqMask = (std::uint64_t{1} << kSeqBits) - 1;
constexpr std::uint64_t kWordMask = (std::uint64_t{1} << kWordBits) - 1;

constexpr std::uint64_t tagged(std::uint64_t word, std::uint32_t seq) noexcept {
  const std::uint64_t low = (word & kWordMask) << kSeqBits | (seq & kSeqMask);
  return Random::mix(low + 1) >> 52 << 52 | low;
}

bool is_zero_seq(const Cell& cell, std::uint32_t seq) noexcept {
  const bool zeros = cell.kind == CellKind::block || cell.kind == CellKind::leased;
  return seq == 0 || (zeros && seq % Shadow::kZeroEvery == 0);
}

/// Whether some store of zeros is among [lowest, highest].
bool zero_is_legal(const Cell& cell, std::uint32_t lowest, std::uint32_t highest) noexcept {
  if (lowest == 0) return true;
  if (cell.kind != CellKind::block && cell.kind != CellKind::leased) return false;
  return highest / Shadow::kZeroEvery * Shadow::kZeroEvery >= lowest;
}

void raise(std::atomic<std::uint32_t>& to, std::uint32_t least) noexcept {
  std::uint32_t now = to.load(std::memory_order_relaxed);
  while (now < least && !to.compare_exchange_weak(now, least, std::memory_order_acq_rel)) {
  }
}

const char* name(CellKind kind) noexcept {
  switch (kind) {
    case CellKind::word: return "word";
    case CellKind::counter: return "counter";
    case CellKind::block: return "block";
    case CellKind::leased: return "leased block";
    case CellKind::overwritten: return "overwritten word";
  }
  return "?";
}

}  // namespace

Shadow::Shadow(const ShadowLayout& layout, Journal& journal, std::pmr::memory_resource* memory)
    : layout_(layout),
      journal_(journal),
      cell_of_(std::uint64_t{layout.granules} * layout.granule_words - layout.words_less),
      cells_(cell_of_.size(), memory),
      overwriter_(layout.granules, -1),
      overwrites_(layout.granules, memory),
      seen_(cell_of_.size(), memory) {
  Random random(layout.seed, 1);
  make_cells(random);
}

void Shadow::make_cells(Random& random) {
  for (std::uint64_t g = 0; g < layout_.granules; ++g) {
    const std::uint64_t first = g * layout_.granule_words;
    const std::uint64_t end = std::min(first + layout_.granule_words, words());
    const bool is_whole = end - first == layout_.granule_words;
    if (is_whole && random.one_in(16)) {
      const unsigned device = random.below32(layout_.devices);
      overwriter_[g] = static_cast<int>(device);
      for (std::uint64_t w = first; w < end; ++w)
        add_cell(w, 1, CellKind::overwritten, lane_owner(device, static_cast<unsigned>(w % layout_.lanes)));
      continue;
    }
    for (std::uint64_t w = first; w < end;) {
      const std::uint64_t block = add_block(w, end - w, random);
      if (block == 0)
        add_cell(w, 1, random.one_in(10) ? CellKind::counter : CellKind::word, any_owner(random));
      w += std::max<std::uint64_t>(block, 1);
    }
  }
}

/// Words taken, 0 if there is to be no block here.
std::uint64_t Shadow::add_block(std::uint64_t first, std::uint64_t room, Random& random) {
  const bool is_direct =
      first % layout_.direct_words == 0 && room >= layout_.direct_words && random.one_in(12);
  if (!is_direct && !random.one_in(96)) return 0;
  // Some blocks reach over a page's end, where the granule is larger than a page.
  const std::uint64_t words =
      is_direct ? layout_.direct_words
                : std::min<std::uint64_t>(room, random.between(2, random.one_in(8) ? 700 : 48));
  if (words < 2) return 0;
  const bool leased = !is_direct && random.one_in(3);
  add_cell(first, words, leased ? CellKind::leased : CellKind::block, random.below(layout_.hosts));
  return words;
}

std::uint8_t Shadow::any_owner(Random& random) const noexcept {
  // Half of the words for the host, half for the devices.
  if (random.one_in(2)) return static_cast<std::uint8_t>(random.below(layout_.hosts));
  return lane_owner(random.below32(layout_.devices), random.below32(layout_.lanes));
}

void Shadow::add_cell(std::uint64_t first, std::uint64_t words, CellKind kind, std::uint64_t owner) {
  Cell& cell = cells_[cell_count_];
  cell.first = static_cast<std::uint32_t>(first);
  cell.words = static_cast<std::uint16_t>(words);
  cell.kind = kind;
  cell.owner = static_cast<std::uint8_t>(owner);
  for (std::uint64_t w = first; w < first + words; ++w) cell_of_[w] = static_cast<std::uint32_t>(cell_count_);
  ++cell_count_;
}

std::uint64_t Shadow::encode(const Cell& cell, std::uint64_t word, std::uint32_t seq) noexcept {
  if (cell.kind == CellKind::counter) return seq;
  return is_zero_seq(cell, seq) ? 0 : tagged(word, seq);
}

std::uint32_t Shadow::begin_store(Cell& cell) noexcept {
  const std::uint32_t seq = cell.ceiling.load(std::memory_order_relaxed) + 1;
  cell.ceiling.store(seq, std::memory_order_release);
  return seq;
}

std::uint32_t Shadow::seq_of(const Cell& cell, std::uint64_t value) noexcept {
  return static_cast<std::uint32_t>(cell.kind == CellKind::counter ? value : value & kSeqMask);
}

Shadow::Look Shadow::look(std::uint64_t word) noexcept {
  const std::uint32_t floor = cell_at(word).floor.load(std::memory_order_acquire);
  const std::uint32_t seen = seen_[word].load(std::memory_order_acquire);
  return {std::max(floor, seen), overwrites_[word / layout_.granule_words].load(std::memory_order_acquire)};
}

Shadow::Look Shadow::look_plain(std::uint64_t word) noexcept {
  return {cell_at(word).durable.load(std::memory_order_acquire),
          overwrites_[word / layout_.granule_words].load(std::memory_order_acquire)};
}

void Shadow::look(std::uint64_t first, std::span<Look> into, bool plain) noexcept {
  for (std::size_t i = 0; i < into.size(); ++i) into[i] = plain ? look_plain(first + i) : look(first + i);
}

bool Shadow::check(const Look& look, std::uint64_t word, std::uint64_t value, Reader reader) noexcept {
  const Cell& cell = cell_at(word);
  const std::uint32_t highest = cell.ceiling.load(std::memory_order_acquire);
  if (cell.kind == CellKind::counter) {
    if (value >= look.lowest && value <= highest) {
      if (reader.path != Path::plain_read) raise(seen_[word], static_cast<std::uint32_t>(value));
      return true;
    }
    complain(word, value, look.lowest, highest, reader,
             value < look.lowest ? "a lost add" : "an add from nowhere");
    return false;
  }
  if (value == 0) {
    if (zero_is_legal(cell, look.lowest, highest)) return true;
    const std::uint32_t now = overwrites_[word / layout_.granule_words].load(std::memory_order_acquire);
    // The plain path may see zeros of an overwriting launch that has ended long ago.
    const bool overwriting = look.overwrites % 2 == 1 || now != look.overwrites;
    if (cell.kind == CellKind::overwritten && (overwriting || reader.path == Path::plain_read)) return true;
    complain(word, value, look.lowest, highest, reader, "zeros");
    return false;
  }
  const std::uint32_t seq = seq_of(cell, value);
  if (value != tagged(word, seq)) {
    const bool misplaced = value == tagged(value >> kSeqBits & kWordMask, seq);
    complain(word, value, look.lowest, highest, reader,
             misplaced ? "another word's bytes" : "torn or foreign bytes");
    return false;
  }
  if (seq < look.lowest || seq > highest || is_zero_seq(cell, seq)) {
    complain(word, value, look.lowest, highest, reader,
             seq < look.lowest ? "an old value" : "a value from nowhere");
    return false;
  }
  // What a write is about to replace on a device may be read there a little longer than home has the new
  // bytes.
  if (reader.path != Path::plain_read) raise(seen_[word], seq);
  return true;
}

bool Shadow::check(std::span<const Look> looks, std::uint64_t first, std::span<const std::uint64_t> values,
                   bool is_atomic, Reader reader) noexcept {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint64_t word = first + i;
    if (!check(looks[i], word, values[i], reader)) return false;
    const Cell& cell = cell_at(word);
    if (!is_atomic || i == 0 || cell.kind != CellKind::block || cell.first == word) continue;
    const bool both_zero = values[i] == 0 && values[i - 1] == 0;
    const bool both_not = values[i] != 0 && values[i - 1] != 0;
    if (both_zero || (both_not && seq_of(cell, values[i]) == seq_of(cell, values[i - 1]))) continue;
    complain(word, values[i], seq_of(cell, values[i - 1]), seq_of(cell, values[i - 1]), reader,
             "half of a write");
    return false;
  }
  return true;
}

bool Shadow::check_order(std::uint64_t word, std::uint64_t earlier_seq, std::uint64_t later_seq,
                         Reader reader) noexcept {
  if (later_seq >= earlier_seq) return true;
  complain(word, later_seq, static_cast<std::uint32_t>(earlier_seq), static_cast<std::uint32_t>(earlier_seq),
           reader, "an older part of a write after a newer one");
  return false;
}

bool Shadow::check_exact(std::uint64_t word, std::uint64_t value, Reader reader) noexcept {
  const Cell& cell = cell_at(word);
  const std::uint32_t seq = cell.ceiling.load();
  if (cell.floor.load() == seq && value == encode(cell, word, seq)) return true;
  complain(word, value, cell.floor.load(), seq, reader, "not what was stored last");
  return false;
}

void Shadow::complain(std::uint64_t word, std::uint64_t value, std::uint32_t lowest, std::uint32_t highest,
                      Reader reader, const char* what) noexcept {
  const Cell& cell = cell_at(word);
  fail(fmt::format("actor {} sees {} by {}: word {} (byte {}, granule {}, word {} of it; {} of {} words from "
                   "{}, owner "
                   "{}) reads {:#x} (word {}, seq {}); legal are seqs {}..{}, now {}..{}",
                   reader.actor, what, stress::name(reader.path), word, word * 8,
                   word / layout_.granule_words, word % layout_.granule_words, name(cell.kind), cell.words,
                   cell.first, cell.owner, value, value >> kSeqBits & kWordMask, seq_of(cell, value), lowest,
                   highest, cell.floor.load(), cell.ceiling.load()),
       word);
}

void Shadow::fail(std::string text, std::uint64_t word) noexcept {
  const std::lock_guard lock(failure_mutex_);
  if (failed_.load(std::memory_order_relaxed)) return;
  failure_ = std::move(text);
  failed_word_ = word;
  failed_.store(true, std::memory_order_release);
}

std::string Shadow::failure() const {
  if (!failed()) return {};
  const std::uint64_t granule = failed_word_ / layout_.granule_words * layout_.granule_words;
  return failure_ + "\nwhat happened to it lately:\n" +
         journal_.tail(failed_word_, granule, layout_.granule_words, 60);
}

}  // namespace aprime::stress
