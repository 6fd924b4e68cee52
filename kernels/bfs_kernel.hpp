#pragma once

#include <cstddef>
#include <cstdint>

#include "aprime/device_span.hpp"
#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"
#include "kernels/csr_kernel.hpp"

namespace aprime::kernels {

/// Level of a vertex that was not reached.
inline constexpr std::uint32_t kUnreached = 0xffff'ffff;

/// What the levels of a search share with the host.
struct BfsState {
  CsrProblems problems;
  /// Vertices of the next frontier so far.
  unsigned long long found;
};

/// One level of a breadth-first search: each vertex of the frontier gives `level` to those of its neighbours
/// that have none yet, and puts them into the next frontier. Nobody knows which parts of the graph it takes,
/// so that all of it is faulted in as it is touched. A wrong row or column is noted and left out.
struct BfsKernel {
  static constexpr unsigned kThreads = 64;
  /// Neighbours that a thread looks at under one pin.
  static constexpr unsigned kBatch = 8;

  /// Vertices in the frontier.
  std::uint64_t count;
  std::uint32_t level;
  std::uint64_t vertices;
  std::uint64_t edges;

  APRIME_DEVICE void operator()(device_span<const std::uint64_t> offsets,
                                device_span<const std::uint32_t> columns,
                                device_span<const std::uint32_t> frontier, device_span<std::uint32_t> next,
                                device_span<std::uint32_t> levels, LeasedSpan<BfsState> state) const {
    const std::uint64_t threads = std::uint64_t{gridDim.x} * blockDim.x;
    for (std::uint64_t i = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += threads) {
      const std::uint32_t vertex = frontier.load(i);
      const std::uint64_t begin = offsets.load(vertex);
      const std::uint64_t end = offsets.load(vertex + std::size_t{1});
      if (begin > end || end > edges) {
        atomicMin(&state[0].problems.row, static_cast<unsigned long long>(vertex));
        continue;
      }
      for (std::uint64_t edge = begin; edge < end;) {
        std::uint32_t neighbours[kBatch];
        const unsigned batch = copy_neighbours(columns, edge, end, neighbours);
        for (unsigned n = 0; n < batch; ++n) visit(neighbours[n], edge + n, next, levels, state[0]);
        edge += batch;
      }
    }
  }

 private:
  APRIME_DEVICE static unsigned copy_neighbours(const device_span<const std::uint32_t>& columns,
                                                std::uint64_t edge, std::uint64_t end,
                                                std::uint32_t (&neighbours)[kBatch]) {
    const std::uint64_t batch = end - edge < kBatch ? end - edge : kBatch;
    // Each lane has an edge of its own.
    return static_cast<unsigned>(
        columns.with_pinned(edge, batch, [&](const std::uint32_t* pinned, std::size_t size) {
          for (std::size_t n = 0; n < size; ++n) neighbours[n] = pinned[n];
        }));
  }

  APRIME_DEVICE void visit(std::uint32_t neighbour, std::uint64_t edge,
                           const device_span<std::uint32_t>& next, const device_span<std::uint32_t>& levels,
                           BfsState& state) const {
    if (neighbour >= vertices) {
      atomicMin(&state.problems.entry, static_cast<unsigned long long>(edge));
      return;
    }
    // Not looked at first by a plain load: that would race with the others' atomic stores.
    if (levels.atomic_compare_exchange(neighbour, kUnreached, level) != kUnreached) return;
    next.store(atomicAdd(&state.found, 1ULL), neighbour);
  }
};

}  // namespace aprime::kernels
