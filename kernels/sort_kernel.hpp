#pragma once

#include <thrust/copy.h>
#include <thrust/execution_policy.h>
#include <thrust/merge.h>
#include <thrust/sort.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "aprime/lease.hpp"

namespace aprime::kernels {

/// Sorts leased elements in ascending order. A task: Thrust's device system does the work.
struct SortTask {
  void operator()(LeasedSpan<std::uint32_t> elements) const {
    thrust::sort(thrust::device, elements.begin(), elements.end());
  }
};

/// Merges two sorted neighbours, [0, middle) and the rest, with working memory of the same size.
struct MergeTask {
  std::size_t middle;

  void operator()(LeasedSpan<std::uint32_t> elements) const {
    std::vector<std::uint32_t> merged(elements.size());
    std::uint32_t* second = elements.data() + middle;
    thrust::merge(thrust::device, elements.begin(), second, second, elements.end(), merged.begin());
    thrust::copy(thrust::device, merged.begin(), merged.end(), elements.begin());
  }
};

}  // namespace aprime::kernels
