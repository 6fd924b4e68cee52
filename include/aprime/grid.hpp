#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace aprime {

/// Extent of a grid (in blocks) or of a block (in threads), as CUDA's `dim3`.
struct Dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;

  /// Product of the three extents. Does not overflow for an extent that `Grid::problem()` accepts.
  [[nodiscard]] constexpr std::uint64_t count() const noexcept {
    return std::uint64_t{x} * std::uint64_t{y} * std::uint64_t{z};
  }
  friend constexpr bool operator==(const Dim3&, const Dim3&) noexcept = default;
};

/// Zero-based position of a block in its grid or of a thread in its block, as CUDA's `uint3`.
struct Index3 {
  unsigned x = 0;
  unsigned y = 0;
  unsigned z = 0;

  friend constexpr bool operator==(const Index3&, const Index3&) noexcept = default;
};

/// Lanes of a warp: threads whose linear number in the block differs only in the low five bits.
inline constexpr unsigned warp_lanes = 32;

/// Limits of a launch; those every CUDA device since compute capability 3.0 shares.
inline constexpr unsigned threads_per_block_max = 1024;
inline constexpr Dim3 block_extent_max{1024, 1024, 64};
inline constexpr Dim3 grid_extent_max{0x7fff'ffff, 65'535, 65'535};
/// Bytes of dynamic shared memory per block: what the largest present device grants on request.
inline constexpr std::size_t shared_bytes_max = 227 * 1024;

/// Shape of one kernel launch. A plain value; safe to copy and share.
struct Grid {
  Dim3 blocks;
  Dim3 threads;
  /// Dynamic shared memory of each block, in bytes (`aprime::dynamic_shared<T>()`).
  std::size_t shared_bytes = 0;

  /// Why this grid cannot be launched, or nullptr when it can. The text has static storage.
  [[nodiscard]] constexpr const char* problem() const noexcept {
    if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0) return "the grid has no blocks";
    if (threads.x == 0 || threads.y == 0 || threads.z == 0) return "a block has no threads";
    if (threads.x > block_extent_max.x || threads.y > block_extent_max.y || threads.z > block_extent_max.z ||
        threads.count() > threads_per_block_max) {
      return "a block has more than 1024 threads, or more than 64 in z";
    }
    if (blocks.x > grid_extent_max.x || blocks.y > grid_extent_max.y || blocks.z > grid_extent_max.z) {
      return "the grid has more than 2147483647 blocks in x, or more than 65535 in y or z";
    }
    if (shared_bytes > shared_bytes_max) return "more than 227 KiB of dynamic shared memory per block";
    return nullptr;
  }

  /// The smallest one-dimensional grid with at least one thread per element. The last block may hold threads
  /// past the end, so kernels check their index; for 0 elements it is one block, all of whose threads are.
  /// Throws std::invalid_argument when threads_per_block is not in [1, 1024] or too many blocks would be
  /// needed.
  [[nodiscard]] static constexpr Grid cover(std::uint64_t elements, unsigned threads_per_block) {
    if (threads_per_block == 0 || threads_per_block > threads_per_block_max) {
      throw std::invalid_argument("Grid::cover: threads_per_block must lie between 1 and 1024");
    }
    const std::uint64_t rest = elements % threads_per_block == 0 ? 0 : 1;
    const std::uint64_t needed = elements / threads_per_block + rest;
    if (needed > grid_extent_max.x) throw std::invalid_argument("Grid::cover: more than 2147483647 blocks");
    return Grid{Dim3{needed == 0 ? 1U : static_cast<unsigned>(needed), 1, 1}, Dim3{threads_per_block, 1, 1},
                0};
  }
};

}  // namespace aprime
