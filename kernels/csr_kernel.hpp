#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"

namespace aprime::kernels {

/// The first wrong row and the first wrong column in a file of compressed sparse rows.
struct CsrProblems {
  static constexpr unsigned long long kNone = ~0ULL;

  unsigned long long row = kNone;
  unsigned long long entry = kNone;
};

/// Finds rows that begin after the next one, or after the last non-zero. One thread for each row.
struct CsrOffsetsKernel {
  std::uint64_t first_row;
  std::uint64_t nonzeros;

  APRIME_DEVICE void operator()(LeasedSpan<const std::uint64_t> offsets,
                                LeasedSpan<CsrProblems> problems) const {
    const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i + 1 >= offsets.size()) return;
    if (offsets[i] > offsets[i + 1] || offsets[i + 1] > nonzeros) atomicMin(&problems[0].row, first_row + i);
  }
};

/// Finds columns that are out of range. One thread for each non-zero.
struct CsrColumnsKernel {
  std::uint64_t first_entry;
  std::uint64_t columns_end;

  APRIME_DEVICE void operator()(LeasedSpan<const std::uint32_t> columns,
                                LeasedSpan<CsrProblems> problems) const {
    const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < columns.size() && columns[i] >= columns_end) atomicMin(&problems[0].entry, first_entry + i);
  }
};

/// Adds to y the product of some non-zeros of consecutive rows and a part of x. The leased offsets and y are
/// those of the rows, the leased columns and values those of the non-zeros, of which the first and the last
/// row may have more. `lanes` threads, a power of two up to 32, share a row (Bell and Garland, "Implementing
/// sparse matrix-vector multiplication on throughput-oriented processors", SC 2009).
struct SpmvKernel {
  static constexpr unsigned kThreads = 256;

  std::uint64_t first_entry;
  std::uint64_t first_column;
  unsigned lanes;

  APRIME_DEVICE void operator()(LeasedSpan<const std::uint64_t> offsets,
                                LeasedSpan<const std::uint32_t> columns, LeasedSpan<const float> values,
                                LeasedSpan<const float> x, LeasedSpan<float> y) const {
    const std::size_t thread = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    const std::size_t row = thread / lanes;
    const unsigned lane = static_cast<unsigned>(thread % lanes);
    float sum = 0;
    if (row < y.size()) {
      const std::uint64_t end_entry = first_entry + columns.size();
      const std::uint64_t begin = offsets[row] > first_entry ? offsets[row] : first_entry;
      const std::uint64_t end = offsets[row + 1] < end_entry ? offsets[row + 1] : end_entry;
      for (std::uint64_t entry = begin + lane; entry < end; entry += lanes) {
        // Wraps around to a large number for columns before the part.
        const std::uint64_t column = columns[entry - first_entry] - first_column;
        if (column < x.size()) sum = fmaf(values[entry - first_entry], x[column], sum);
      }
    }
    for (unsigned step = lanes / 2; step > 0; step /= 2) {
      sum += __shfl_down_sync(0xffff'ffffU, sum, step, static_cast<int>(lanes));
    }
    if (lane == 0 && row < y.size()) y[row] += sum;
  }
};

}  // namespace aprime::kernels
