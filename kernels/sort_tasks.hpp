#pragma once

#include <cstddef>
#include <cstdint>

#include "aprime/lease.hpp"

namespace aprime::kernels {

// Tasks of the emulated devices run Thrust on the CPU (sort_tasks.cpp), those of CUDA on the GPU
// (cuda/sort.cu). The headers of the two must not meet in one file.

/// Sorts leased elements in ascending order.
struct SortTask {
  void operator()(LeasedSpan<std::uint32_t> elements) const;
};

/// Merges two sorted neighbours, [0, middle) and the rest, with working memory of the same size.
struct MergeTask {
  std::size_t middle;

  void operator()(LeasedSpan<std::uint32_t> elements) const;
};

}  // namespace aprime::kernels
