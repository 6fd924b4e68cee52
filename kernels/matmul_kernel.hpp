#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"

namespace aprime::kernels {

/// Stores the product of a part of A and a part of B to a part of C, or adds it there; all three are kept row
/// by row. What is leased of a matrix begins with the part's first element and reaches to its last one, so
/// that `pitch`, the length of a whole row, leads from one row of the part to the next.
///
/// A block computes a tile of C and goes along the inner dimension tile by tile, through shared memory, so
/// that an element of A or B is loaded once for each tile and not once for each product. Blocks of
/// kTile x kTileRows threads; the grid may have fewer tile rows than the part.
struct MatmulKernel {
  static constexpr unsigned kTile = 32;
  static constexpr unsigned kTileRows = 8;
  static constexpr unsigned kPerThread = kTile / kTileRows;

  std::uint64_t rows;
  std::uint64_t inner;
  std::uint64_t columns;
  std::uint64_t a_pitch;
  std::uint64_t b_and_c_pitch;
  /// The part of C holds the sum of earlier products.
  bool adds;

  APRIME_DEVICE void operator()(LeasedSpan<const float> a, LeasedSpan<const float> b,
                                LeasedSpan<float> c) const {
    __shared__ float a_tile[kTile][kTile + 1];
    __shared__ float b_tile[kTile][kTile + 1];
    const unsigned x = threadIdx.x;
    const std::uint64_t column = std::uint64_t{blockIdx.x} * kTile + x;
    for (std::uint64_t top = std::uint64_t{blockIdx.y} * kTile; top < rows;
         top += std::uint64_t{gridDim.y} * kTile) {
      float sums[kPerThread];
      for (unsigned n = 0; n < kPerThread; ++n) {
        const std::uint64_t row = top + threadIdx.y + n * kTileRows;
        sums[n] = adds && row < rows && column < columns ? c[row * b_and_c_pitch + column] : 0.0F;
      }
      for (std::uint64_t k = 0; k < inner; k += kTile) {
        for (unsigned y = threadIdx.y; y < kTile; y += kTileRows) {
          const bool in_a = top + y < rows && k + x < inner;
          const bool in_b = k + y < inner && column < columns;
          a_tile[y][x] = in_a ? a[(top + y) * a_pitch + k + x] : 0.0F;
          b_tile[y][x] = in_b ? b[(k + y) * b_and_c_pitch + column] : 0.0F;
        }
        __syncthreads();
        // Not past the end of the inner dimension: a zero there times an infinity elsewhere would be a NaN.
        const unsigned terms = inner - k < kTile ? static_cast<unsigned>(inner - k) : kTile;
        for (unsigned i = 0; i < terms; ++i) {
          for (unsigned n = 0; n < kPerThread; ++n) {
            sums[n] = fmaf(a_tile[threadIdx.y + n * kTileRows][i], b_tile[i][x], sums[n]);
          }
        }
        __syncthreads();
      }
      for (unsigned n = 0; n < kPerThread; ++n) {
        const std::uint64_t row = top + threadIdx.y + n * kTileRows;
        if (row < rows && column < columns) c[row * b_and_c_pitch + column] = sums[n];
      }
    }
  }
};

}  // namespace aprime::kernels
