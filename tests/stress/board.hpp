#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory_resource>

#include "tests/stress/journal.hpp"
#include "tests/stress/random.hpp"
#include "tests/stress/shadow.hpp"

namespace aprime::stress {

/// Memory that a program inherits by its descriptor. Zeroed.
class SharedMemory {
 public:
  static constexpr std::size_t kBytes = std::size_t{96} << 20;  // takes what is used of it

  /// \throws std::runtime_error
  SharedMemory();
  /// Of the process that made it.
  explicit SharedMemory(int inherited);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  int descriptor() const noexcept { return fd_; }
  std::byte* data() const noexcept { return data_; }

 private:
  int fd_;
  std::byte* data_;
};

/// What a run is about. Trivially copyable, for programs to find in the memory that they share.
struct BoardLayout {
  ShadowLayout shadow;
  unsigned actors;
  std::uint64_t operations;
  /// How many system calls of programs on the mount must be among them.
  std::uint64_t calls;
  /// Owners now and then publish a store that they did not make.
  bool loses_stores;
};

/// What all actors of a run share, in whichever process they are: the model, the journal, how much is done.
/// Thread-safe.
class Board {
 public:
  explicit Board(const BoardLayout& layout,
                 std::pmr::memory_resource* memory = std::pmr::get_default_resource());
  /// The board of all processes that have this memory. Each makes its own before the actors begin.
  static BoardLayout& layout_in(const SharedMemory& memory) noexcept;
  explicit Board(const SharedMemory& memory);

  const BoardLayout& layout() const noexcept { return layout_; }
  Shadow& shadow() noexcept { return shadow_; }
  Journal& journal() noexcept { return journal_; }
  std::uint64_t operations_done() const noexcept { return state_->done.load(); }
  std::uint64_t calls_done() const noexcept { return state_->calls.load(); }

  /// Adds to the operations done, and to the `calls` of programs among them; false when the run is over.
  bool go_on(std::uint64_t done, std::uint64_t calls = 0) noexcept {
    const std::uint64_t before = state_->done.fetch_add(done, std::memory_order_relaxed);
    const std::uint64_t calls_before = state_->calls.fetch_add(calls, std::memory_order_relaxed);
    if (shadow_.failed()) state_->failed.store(true, std::memory_order_relaxed);
    const bool is_enough = before + done >= layout_.operations && calls_before + calls >= layout_.calls;
    return !is_enough && !state_->failed.load(std::memory_order_relaxed);
  }
  /// Returns when programs have done that many calls, or the run all its calls, or it has failed.
  void await_calls(std::uint64_t calls) const noexcept;
  bool lose_this_store(Random& random) const noexcept { return layout_.loses_stores && random.one_in(64); }

 private:
  struct State {
    std::atomic<std::uint64_t> done{0};
    std::atomic<std::uint64_t> calls{0};
    std::atomic<bool> failed{false};
  };

  const BoardLayout layout_;
  std::pmr::monotonic_buffer_resource memory_;
  std::pmr::vector<State> state_in_;  // one
  State* const state_;
  Journal journal_;
  Shadow shadow_;
};

/// A word of [first, first + count): often one that this actor may store or add to, sometimes just any.
std::uint64_t pick_word(Shadow& shadow, std::uint64_t first, std::uint64_t count, std::uint8_t me,
                        Random& random);

/// Loads, stores or adds to the word, through any pointer, as its owner or not.
void touch_word(Board& board, std::uint64_t* at, std::uint64_t word, std::uint8_t me, unsigned actor,
                bool on_device, bool may_store, Random& random);

}  // namespace aprime::stress
