#pragma once

#include <atomic>
#include <cstdint>
#include <memory_resource>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "tests/stress/journal.hpp"
#include "tests/stress/random.hpp"

namespace aprime::stress {

/// What one cell is: one word, or some neighbouring words of one granule that are written together.
enum class CellKind : std::uint8_t {
  /// One word that only its owner stores to.
  word,
  /// One word that everybody adds one to, from the host and from devices; it holds a plain number.
  counter,
  /// Words that only their owner writes, all of them in one `write`, `write_direct` or `discard`: whoever
  /// uses
  /// `read` sees all of them old or all of them new.
  block,
  /// Likewise, but stored to through a host lease by a system call, hence seen word by word.
  leased,
  /// One word of a granule that one device overwrites whole under write leases: it may read as zero
  /// meanwhile.
  overwritten,
};

/// The legal range of a cell's sequence numbers. Its owner raises `ceiling` before a store begins and `floor`
/// after it has completed; a counter counts the adds that began and those that completed. `durable` is a
/// floor that a sync has made true for the plain path.
struct Cell {
  std::atomic<std::uint32_t> floor{0};
  std::atomic<std::uint32_t> ceiling{0};
  std::atomic<std::uint32_t> durable{0};
  std::uint32_t first = 0;
  std::uint16_t words = 1;
  std::uint8_t owner = 0;
  CellKind kind = CellKind::word;
};

/// How the words of the file are given out.
struct ShadowLayout {
  std::uint64_t seed;
  std::uint32_t granules;
  std::uint32_t granule_words;
  /// Words at the end of the last granule that belong to somebody else.
  std::uint32_t words_less;
  /// Words of a unit of direct I/O.
  std::uint32_t direct_words;
  /// Actors 0..hosts-1 are host threads, then `lanes` for each device.
  unsigned hosts;
  unsigned devices;
  unsigned lanes;
};

/// What is known of every word of the file, and the judge of every value that anybody reads. Words of
/// different owners lie next to each other, so that nearly every granule is shared by all actors.
/// Thread-safe.
class Shadow {
 public:
  /// In block and leased cells every such sequence number stands for zeros: a discard or a write of zeros.
  static constexpr std::uint32_t kZeroEvery = 8;

  /// `memory` may be shared with other processes: each makes a shadow of its own there, before any of them
  /// stores or judges anything, of the same layout.
  Shadow(const ShadowLayout& layout, Journal& journal,
         std::pmr::memory_resource* memory = std::pmr::get_default_resource());

  std::uint64_t words() const noexcept { return cell_of_.size(); }
  std::uint64_t granule_words() const noexcept { return layout_.granule_words; }
  std::uint64_t granules() const noexcept { return layout_.granules; }
  Cell& cell_at(std::uint64_t word) noexcept { return cells_[cell_of_[word]]; }
  std::span<Cell> cells() noexcept { return {cells_.data(), cell_count_}; }
  std::uint8_t lane_owner(unsigned device, unsigned lane) const noexcept {
    return static_cast<std::uint8_t>(layout_.hosts + device * layout_.lanes + lane);
  }
  unsigned lanes() const noexcept { return layout_.lanes; }
  /// The device that overwrites this granule, or -1.
  int overwriter_of(std::uint64_t granule) const noexcept { return overwriter_[granule]; }

  /// What word `word` holds at sequence number `seq` of its cell.
  static std::uint64_t encode(const Cell& cell, std::uint64_t word, std::uint32_t seq) noexcept;

  /// The owner's store of the next sequence number: begin, store `encode`, end.
  static std::uint32_t begin_store(Cell& cell) noexcept;
  static void end_store(Cell& cell, std::uint32_t seq) noexcept {
    cell.floor.store(seq, std::memory_order_release);
  }

  void begin_overwrite(std::uint64_t granule) noexcept { overwrites_[granule].fetch_add(1); }
  void end_overwrite(std::uint64_t granule) noexcept { overwrites_[granule].fetch_add(1); }

  /// What a read that begins now may not fall short of.
  struct Look {
    std::uint32_t lowest = 0;
    std::uint32_t overwrites = 0;
  };
  Look look(std::uint64_t word) noexcept;
  /// Likewise, for a read past aprime.
  Look look_plain(std::uint64_t word) noexcept;
  void look(std::uint64_t first, std::span<Look> into, bool plain = false) noexcept;

  struct Reader {
    unsigned actor;
    Path path;
  };
  /// Judges a value that a read has returned. What one reader saw nobody may see undone later, unless the
  /// read went past aprime.
  bool check(const Look& look, std::uint64_t word, std::uint64_t value, Reader reader) noexcept;
  /// Judges the words of one call; `is_atomic` says that blocks must be seen whole.
  bool check(std::span<const Look> looks, std::uint64_t first, std::span<const std::uint64_t> values,
             bool is_atomic, Reader reader) noexcept;
  /// Judges two values of a block's words, seen one after the other: the second may not be older.
  bool check_order(std::uint64_t word, std::uint64_t earlier_seq, std::uint64_t later_seq,
                   Reader reader) noexcept;
  /// The sequence number of a legal value; 0 if it is zero.
  static std::uint32_t seq_of(const Cell& cell, std::uint64_t value) noexcept;
  /// Nobody is at work: the word must hold exactly what the model says.
  bool check_exact(std::uint64_t word, std::uint64_t value, Reader reader) noexcept;

  // The first failure.
  void fail(std::string text, std::uint64_t word = 0) noexcept;
  bool failed() const noexcept { return failed_.load(std::memory_order_acquire); }
  std::uint64_t failed_word() const noexcept { return failed_word_; }
  /// With the journal's tail for the word. \pre the actors have stopped
  std::string failure() const;

 private:
  void make_cells(Random& random);
  void add_cell(std::uint64_t first, std::uint64_t words, CellKind kind, std::uint64_t owner);
  std::uint64_t add_block(std::uint64_t first, std::uint64_t room, Random& random);
  std::uint8_t any_owner(Random& random) const noexcept;
  void complain(std::uint64_t word, std::uint64_t value, std::uint32_t lowest, std::uint32_t highest,
                Reader reader, const char* what) noexcept;

  const ShadowLayout layout_;
  Journal& journal_;
  std::vector<std::uint32_t> cell_of_;
  std::pmr::vector<Cell> cells_;
  std::size_t cell_count_ = 0;
  std::vector<int> overwriter_;
  /// Odd while an overwriting launch is on its way.
  std::pmr::vector<std::atomic<std::uint32_t>> overwrites_;
  /// For each word the highest sequence number that anybody has read.
  std::pmr::vector<std::atomic<std::uint32_t>> seen_;

  std::atomic<bool> failed_{false};
  std::mutex failure_mutex_;
  std::string failure_;
  std::uint64_t failed_word_ = 0;
};

}  // namespace aprime::stress
