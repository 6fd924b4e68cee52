#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <vector>

#include "tests/stress/board.hpp"

namespace aprime::stress {

/// Words at an address that direct I/O takes.
class AlignedWords {
 public:
  explicit AlignedWords(std::size_t words)
      : words_(static_cast<std::uint64_t*>(::operator new(words * 8, kAlignment))), size_(words) {}
  ~AlignedWords() { ::operator delete(words_, kAlignment); }
  AlignedWords(const AlignedWords&) = delete;
  AlignedWords& operator=(const AlignedWords&) = delete;
  std::span<std::uint64_t> first(std::size_t n) const { return std::span(words_, size_).first(n); }

 private:
  static constexpr std::align_val_t kAlignment{4096};
  std::uint64_t* const words_;
  const std::size_t size_;
};

/// What the actors that use the file by calls have in common, in this process and in others: they look at the
/// model, call, note what they did and have it judged.
class CallActor {
 protected:
  /// `owner` of words, and number of the `actor` in the journal.
  CallActor(Board& board, std::uint8_t owner, unsigned actor, Random random);

  /// A cell of ours that begins near `start` and lies below `end`, by preference one of several words. Null
  /// if there is none.
  Cell* find_mine(std::uint64_t start, std::uint64_t end);
  /// A place in [first, first + words): some granules are more popular than others, so that there is much to
  /// and fro.
  std::uint64_t any_word(std::uint64_t first, std::uint64_t words);
  /// How many words are read in one go, at most `room`.
  std::uint64_t any_length(std::uint64_t room);
  /// The words of the cell at that sequence number.
  std::span<std::uint64_t> encode(const Cell& cell, std::uint32_t seq);
  Journal::Clock::time_point look(std::uint64_t first, std::uint64_t n, bool plain);
  /// Judges what the buffer holds of [first, first + n).
  void judge(std::uint64_t first, std::uint64_t n, Path path, bool is_atomic,
             Journal::Clock::time_point began);
  void note(Path path, std::uint64_t first, std::uint64_t n, std::uint64_t value,
            Journal::Clock::time_point began);

  /// Remembers what is complete of the cells that lie in [first, first + n), before a sync ...
  void before_sync(std::uint64_t first, std::uint64_t n);
  /// ... that has made it durable.
  void after_sync();

  Board& board_;
  Shadow& shadow_;
  const std::uint8_t me_;
  const unsigned actor_;
  Random random_;
  std::vector<Shadow::Look> looks_;
  /// As many words as looks.
  AlignedWords buffer_;
  /// Operations that the board was not told of yet.
  std::uint64_t done_ = 0;

 private:
  struct Synced {
    Cell* cell;
    std::uint32_t floor;
  };
  std::vector<Synced> synced_;
};

}  // namespace aprime::stress
