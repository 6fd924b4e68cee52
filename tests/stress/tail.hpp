#pragma once

#include <algorithm>
#include <cstdint>

#include "tests/stress/random.hpp"

// What the two have in common that may have the tail: a thread of the runtime's process (tail_actor.cpp), or
// a program (program_tail.cpp).

namespace aprime::stress {

/// Where a program has the tail, every so many words of a granule is one that devices store to.
inline constexpr std::uint64_t kTailMarkEvery = 64;

/// Bytes of the tail.
struct TailPart {
  std::uint64_t at;
  std::uint64_t size;
};
/// Anywhere in a tail of `size` bytes, at most `most` of them; none of an empty one.
inline TailPart some_part(std::uint64_t size, std::uint64_t most, Random& random) {
  if (size == 0) return {0, 0};
  const std::uint64_t at = random.below(size);
  return {at, random.between(1, std::min(most, size - at))};
}

}  // namespace aprime::stress
