#include "kernels/vectors.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/scratch.hpp"
#include "kernels/transpose_kernel.hpp"
#include "kernels/vector_kernel.hpp"

namespace aprime::kernels {
namespace {

constexpr unsigned kThreads = 256;
constexpr std::uint64_t kBlocksMax = 1024;
constexpr std::uint64_t kPartMin = std::uint64_t{16} << 10;

Grid grid_for(ByteRange range) { return Grid::cover(range.size.value / 4, kThreads); }

template <class Step>
void each_range(Session& session, const Mapping& vector, ByteCount chunk, Step step) {
  Session::for_each_range(vector.size_bytes(), chunk, [&](ByteRange range) {
    step(range);
    session.advance_then(ByteCount{0});
  });
  session.finish();
}

}  // namespace

void fill(Session& session, const Mapping& vector, std::uint32_t value) {
  each_range(session, vector, session.lease_bytes(1), [&](ByteRange range) {
    session.queue("fill", grid_for(range), FillKernel{value}, write(vector, range));
  });
}

void copy(Session& session, const Mapping& to, const Mapping& from) {
  each_range(session, to, session.lease_bytes(2), [&](ByteRange range) {
    session.queue("copy", grid_for(range), CopyKernel{}, read(from, range), write(to, range));
  });
}

void combine(Session& session, float y_factor, const Mapping& y, float x_factor, const Mapping& x) {
  each_range(session, y, session.lease_bytes(2), [&](ByteRange range) {
    session.queue("combine", grid_for(range), CombineKernel{x_factor, y_factor}, read_write(y, range),
                  read(x, range));
  });
}

double dot(Session& session, const Mapping& x, const Mapping& y) {
  std::vector<double> sums(kBlocksMax);
  const ByteCount sums_bytes{sums.size() * sizeof(double)};
  const Scratch scratch(session.runtime(), sums_bytes);
  each_range(session, x, session.lease_bytes(2, sums_bytes), [&](ByteRange range) {
    const std::uint64_t elements = range.size.value / sizeof(float);
    const std::uint64_t part = std::max(kPartMin, (elements + kBlocksMax - 1) / kBlocksMax);
    const Grid grid{.blocks = {static_cast<unsigned>((elements + part - 1) / part), 1, 1},
                    .threads = {DotKernel::kThreads, 1, 1}};
    session.queue("dot", grid, DotKernel{part}, read(x, range), read(y, range),
                  read_write(scratch.mapping()));
  });
  scratch.read(std::span(sums));
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace aprime::kernels
