#pragma once

#include <cstddef>
#include <cstdint>

#include "aprime/device_span.hpp"
#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"
#include "tests/contract/kernels.hpp"

// A file of words, each of which one owner stores to and everybody reads: what a word is says who stored it,
// where, and in which of his rounds.

namespace aprime::contract {

inline constexpr unsigned kOwners = 8;

APRIME_HOST_DEVICE inline std::uint64_t owned_word(std::uint64_t word, std::uint32_t round) {
  const std::uint64_t scrambled = (word + 1) * 0x9E37'79B9'7F4A'7C15U;
  return round == 0 ? 0 : (scrambled & 0xFFFF'FFFF'0000'0000U) | round;
}
APRIME_HOST_DEVICE inline std::uint32_t round_of(std::uint64_t value) {
  return static_cast<std::uint32_t>(value);
}
/// Whether it is what the word's owner may have stored there in some round.
APRIME_HOST_DEVICE inline bool is_owned(std::uint64_t word, std::uint64_t value) {
  return value == owned_word(word, round_of(value));
}

/// One owner's visit to some words: his own are as he left them `before`, and are stored to; the others are
/// somebody's.
struct OwnerVisit {
  unsigned owner;
  std::uint32_t before;
  std::uint32_t now;
  /// Number of the first of the words.
  std::uint64_t first;

  APRIME_HOST_DEVICE bool is_mine(std::uint64_t word) const { return word % kOwners == owner; }
  APRIME_HOST_DEVICE bool is_right(std::uint64_t word, std::uint64_t value) const {
    return is_mine(word) ? value == owned_word(word, before) : is_owned(word, value);
  }
};

/// Stores the number of wrong words, and of one of them, one more than its number.
APRIME_DEVICE inline void complain(LeasedSpan<unsigned long long> wrong, std::uint64_t word) {
  atomicAdd(&wrong[0], 1ULL);
  atomicMax(&wrong[1], static_cast<unsigned long long>(word) + 1);
}

struct VisitLeased {
  OwnerVisit visit;
  APRIME_DEVICE void operator()(LeasedSpan<std::uint64_t> words, LeasedSpan<unsigned long long> wrong) const {
    for (std::size_t i = first_index(); i < words.size(); i += index_step()) {
      const std::uint64_t word = visit.first + i;
      if (!visit.is_right(word, words[i])) complain(wrong, word);
      if (visit.is_mine(word)) words[i] = owned_word(word, visit.now);
    }
  }
};

struct VisitOnDemand {
  OwnerVisit visit;
  APRIME_DEVICE void operator()(device_span<std::uint64_t> words,
                                LeasedSpan<unsigned long long> wrong) const {
    for (std::size_t i = first_index(); i < words.size(); i += index_step()) {
      const std::uint64_t word = visit.first + i;
      if (!visit.is_right(word, words.load(i))) complain(wrong, word);
      if (visit.is_mine(word)) words.store(i, owned_word(word, visit.now));
    }
  }
};

}  // namespace aprime::contract
