#pragma once

#include <cstdint>

#include "aprime/mapping.hpp"
#include "kernels/session.hpp"

namespace aprime::kernels {

/// Positions of 4-byte elements in a mapping: [first, last).
struct ElementRange {
  std::uint64_t first;
  std::uint64_t last;

  std::uint64_t size() const noexcept { return last - first; }
  ByteRange bytes() const noexcept { return {ByteOffset{first * 4}, ByteCount{size() * 4}}; }
};

/// Exchanges two neighbours in place, [first, middle) and [middle, last), each keeping its order, whatever
/// their size: each half is reversed and then the whole (Gries and Mills, "Swapping sections", Cornell TR
/// 81-452, 1981). Every element is loaded and stored twice.
void rotate(Session& session, const Mapping& mapping, std::uint64_t first, std::uint64_t middle,
            std::uint64_t last);

}  // namespace aprime::kernels
