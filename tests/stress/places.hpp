#pragma once

#include <algorithm>
#include <cstdint>

#include "tests/stress/shadow.hpp"

namespace aprime::stress {

/// Some words of the file.
struct Part {
  std::uint64_t first;
  std::uint64_t words;
};

/// Those of `part` that lie in one granule, half of the time in one where everybody else goes too.
inline Part some_granule(const Shadow& shadow, Part part, Random& random) {
  const std::uint64_t granule = shadow.granule_words();
  const std::uint64_t within = random.one_in(2) ? std::min(part.words, 6 * granule) : part.words;
  const std::uint64_t begin = (part.first + random.below(within)) / granule * granule;
  const std::uint64_t first = std::max(begin, part.first);
  return {first, std::min(begin + granule, part.first + part.words) - first};
}

/// Words of a block, first and last ones in turn: they may lie on different pages.
inline std::uint64_t from_edges(const Cell& block, std::uint64_t i, bool backwards) {
  const bool at_end = (i % 2 == 0) == backwards;
  return block.first + (at_end ? block.words - 1 - i / 2 : i / 2);
}

}  // namespace aprime::stress
