#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <vector>

#include "aprime/units.hpp"
#include "host/os/memory.hpp"

namespace aprime::device {

/// Some of a file's granules. Finding them costs what they are, not what the file spans.
///
/// Thread-safe. Marking allocates nothing and may happen inside a signal handler; memory is used for marks
/// only, so that it does not grow with their number.
class GranuleMarks {
 public:
  /// Makes granules [0, count) markable. One thread at a time. \throws Error(resources)
  void reserve(GranuleCount count) {
    groups_.reserve((count.value >> kLog2Group) + 1);
    words_.reserve((count.value >> kLog2Word) + 1);
  }

  void mark(GranuleRange range) noexcept {
    for_each_word(range, [this](std::uint64_t w, std::uint64_t bits) {
      words_[w].fetch_or(bits);
      // After the word, and always: `take` clears them in the opposite order.
      groups_[w >> (kLog2Group - kLog2Word)].store(1);
      return true;
    });
  }
  void unmark(GranuleRange range) noexcept {
    for_each_word(range, [this](std::uint64_t w, std::uint64_t bits) {
      // Nearly always there is nothing, and a look does not take the cache line from others.
      if ((words_[w].load() & bits) != 0) words_[w].fetch_and(~bits);
      return true;
    });
  }
  bool any_marked(GranuleRange range) const noexcept {
    return !for_each_word(
        range, [this](std::uint64_t w, std::uint64_t bits) { return (words_[w].load() & bits) == 0; });
  }
  bool all_marked(GranuleRange range) const noexcept {
    return for_each_word(
        range, [this](std::uint64_t w, std::uint64_t bits) { return (words_[w].load() & bits) == bits; });
  }

  /// Takes each mark away, in order, and calls `fn(GranuleIndex)`, which may mark it again. If that throws,
  /// its mark and the rest stay.
  template <class Fn>
  void take_each(Fn&& fn) {
    const std::uint64_t words = words_.capacity();
    for (std::uint64_t group = 0; group << (kLog2Group - kLog2Word) < words; ++group) {
      if (groups_[group].load() == 0) continue;
      groups_[group].store(0);
      for (std::uint64_t w = group << (kLog2Group - kLog2Word);
           w < words && w >> (kLog2Group - kLog2Word) == group; ++w)
        take_word(w, fn);
    }
  }

  /// Takes all marks away and says where they were, in order. \throws std::bad_alloc, and takes none away
  std::vector<GranuleRange> take() {
    std::vector<GranuleRange> runs;
    try {
      take_each([&](GranuleIndex g) { append(runs, g); });
    } catch (...) {
      for (const GranuleRange& run : runs) mark(run);
      throw;
    }
    return runs;
  }

 private:
  static constexpr unsigned kLog2Word = 6;
  static constexpr std::uint64_t kWordBits = std::uint64_t{1} << kLog2Word;
  static constexpr unsigned kLog2Group = 12;

  /// Calls `fn(word, bits)` for each word that has granules of the range; stops and returns false if it does.
  template <class Fn>
  static bool for_each_word(GranuleRange range, const Fn& fn) noexcept {
    for (std::uint64_t g = range.first.value; g < range.end().value;) {
      const std::uint64_t from = g & (kWordBits - 1);
      const std::uint64_t count = std::min(kWordBits - from, range.end().value - g);
      if (!fn(g >> kLog2Word, ~std::uint64_t{0} >> (kWordBits - count) << from)) return false;
      g += count;
    }
    return true;
  }

  template <class Fn>
  void take_word(std::uint64_t w, Fn& fn) {
    std::uint64_t bits = words_[w].exchange(0);
    try {
      for (; bits != 0; bits &= bits - 1)
        fn(GranuleIndex{(w << kLog2Word) + static_cast<unsigned>(std::countr_zero(bits))});
    } catch (...) {
      words_[w].fetch_or(bits);
      groups_[w >> (kLog2Group - kLog2Word)].store(1);
      throw;
    }
  }

  static void append(std::vector<GranuleRange>& runs, GranuleIndex g) {
    if (!runs.empty() && runs.back().end() == g)
      runs.back().count.value += 1;
    else
      runs.push_back({g, GranuleCount{1}});
  }

  /// A bit for each granule.
  os::GrowingTable<std::atomic<std::uint64_t>> words_;
  /// Not 0 if a granule of the group may be marked: what was never written costs nothing to look at.
  os::GrowingTable<std::atomic<std::uint8_t>> groups_;
};

}  // namespace aprime::device
