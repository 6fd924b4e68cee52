#pragma once

#include <cstddef>
#include <cstdint>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"

namespace aprime::kernels {

/// Tiles are moved through shared memory, so that both sides are accessed along their rows. The extra column
/// puts the elements of a tile's column into different banks. Blocks of kTile x kTileRows threads.
inline constexpr unsigned kTile = 32;
inline constexpr unsigned kTileRows = 8;

/// to[c * rows + r] = from[r * columns + c]. Block (x, y) moves the tile in tile column x and tile row y; the
/// grid may have fewer tile rows than the matrix.
struct TransposeKernel {
  std::uint64_t rows;
  std::uint64_t columns;

  APRIME_DEVICE void operator()(LeasedSpan<const std::uint32_t> from, LeasedSpan<std::uint32_t> to) const {
    __shared__ std::uint32_t tile[kTile][kTile + 1];
    const std::uint64_t left = std::uint64_t{blockIdx.x} * kTile;
    for (std::uint64_t top = std::uint64_t{blockIdx.y} * kTile; top < rows;
         top += std::uint64_t{gridDim.y} * kTile) {
      const std::uint64_t column = left + threadIdx.x;
      for (unsigned r = threadIdx.y; r < kTile; r += kTileRows) {
        if (top + r < rows && column < columns) tile[r][threadIdx.x] = from[(top + r) * columns + column];
      }
      __syncthreads();
      const std::uint64_t row = top + threadIdx.x;
      for (unsigned c = threadIdx.y; c < kTile; c += kTileRows) {
        if (row < rows && left + c < columns) to[(left + c) * rows + row] = tile[threadIdx.x][c];
      }
      __syncthreads();
    }
  }
};

/// `from` holds pieces of `left` elements and after them as many pieces of `right` elements; `to` gets them
/// in turn.
struct InterleaveKernel {
  std::uint64_t left;
  std::uint64_t right;

  APRIME_DEVICE void operator()(LeasedSpan<const std::uint32_t> from, LeasedSpan<std::uint32_t> to) const {
    const std::uint64_t i = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i >= to.size()) return;
    const std::uint64_t both = left + right;
    const std::uint64_t pieces = to.size() / both;
    const std::uint64_t piece = i / both;
    const std::uint64_t within = i % both;
    to[i] = within < left ? from[piece * left + within] : from[pieces * left + piece * right + within - left];
  }
};

struct CopyKernel {
  APRIME_DEVICE void operator()(LeasedSpan<const std::uint32_t> from, LeasedSpan<std::uint32_t> to) const {
    const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < to.size()) to[i] = from[i];
  }
};

/// Rows of a square matrix: panels of consecutive ones.
struct SquarePanels {
  std::uint64_t columns;
  /// Number of the first row of each panel, and how many rows it has. One panel may be given twice.
  std::uint64_t upper_first;
  std::uint64_t upper_rows;
  std::uint64_t lower_first;
  std::uint64_t lower_rows;

  /// Exchanges element (r, c) with (c, r) for each row r of the upper panel and each row c of the lower one.
  /// Block (x, y) exchanges the tile at tile row y of the upper panel with the one at tile row x of the
  /// lower.
  APRIME_DEVICE void swap_tiles(std::uint32_t* upper, std::uint32_t* lower) const {
    __shared__ std::uint32_t upper_tile[kTile][kTile + 1];
    __shared__ std::uint32_t lower_tile[kTile][kTile + 1];
    const bool same_panel = upper_first == lower_first;
    // Within one panel a block and its mirror image would do the same exchange.
    if (same_panel && blockIdx.x < blockIdx.y) return;
    const std::uint64_t top = std::uint64_t{blockIdx.y} * kTile;
    const std::uint64_t left = std::uint64_t{blockIdx.x} * kTile;
    const unsigned x = threadIdx.x;
    for (unsigned y = threadIdx.y; y < kTile; y += kTileRows) {
      if (top + y < upper_rows && left + x < lower_rows)
        upper_tile[y][x] = upper[at(top + y, lower_first + left + x)];
      if (left + y < lower_rows && top + x < upper_rows)
        lower_tile[y][x] = lower[at(left + y, upper_first + top + x)];
    }
    __syncthreads();
    for (unsigned y = threadIdx.y; y < kTile; y += kTileRows) {
      if (top + y < upper_rows && left + x < lower_rows)
        upper[at(top + y, lower_first + left + x)] = lower_tile[x][y];
      if (left + y < lower_rows && top + x < upper_rows)
        lower[at(left + y, upper_first + top + x)] = upper_tile[x][y];
    }
  }

 private:
  APRIME_DEVICE std::uint64_t at(std::uint64_t row, std::uint64_t column) const {
    return row * columns + column;
  }
};

/// Two panels that were leased apart.
struct SwapPanelsKernel {
  SquarePanels panels;

  APRIME_DEVICE void operator()(LeasedSpan<std::uint32_t> upper, LeasedSpan<std::uint32_t> lower) const {
    panels.swap_tiles(upper.data(), lower.data());
  }
};

/// One panel, or two neighbours that were leased together.
struct SwapWithinKernel {
  SquarePanels panels;

  APRIME_DEVICE void operator()(LeasedSpan<std::uint32_t> both) const {
    panels.swap_tiles(both.data(), both.data() + (panels.lower_first - panels.upper_first) * panels.columns);
  }
};

}  // namespace aprime::kernels
