#include "kernels/sort_tasks.hpp"

#include <thrust/copy.h>
#include <thrust/execution_policy.h>
#include <thrust/merge.h>
#include <thrust/sort.h>

#include <vector>

namespace aprime::kernels {

void SortTask::operator()(LeasedSpan<std::uint32_t> elements) const {
  thrust::sort(thrust::device, elements.begin(), elements.end());
}

void MergeTask::operator()(LeasedSpan<std::uint32_t> elements) const {
  std::vector<std::uint32_t> merged(elements.size());
  std::uint32_t* second = elements.data() + middle;
  thrust::merge(thrust::device, elements.begin(), second, second, elements.end(), merged.begin());
  thrust::copy(thrust::device, merged.begin(), merged.end(), elements.begin());
}

}  // namespace aprime::kernels
