#include "kernels/transpose.hpp"

#include <algorithm>

#include "kernels/fingerprint.hpp"
#include "kernels/plain_file.hpp"
#include "kernels/rotate.hpp"
#include "kernels/scratch.hpp"
#include "kernels/transpose_kernel.hpp"

namespace aprime::kernels {
namespace {

constexpr Argument kArguments[] = {
    {"FILE", "file of float32 values, row by row, to transpose in place", Access::read_write},
    {"--rows", "number of rows it has now", &Arguments::rows},
};

class TransposeCheck final : public Check {
 public:
  TransposeCheck(const Arguments& arguments, const RunFile& file)
      : file_(file), expected_(file.size.value / sizeof(float)) {
    const std::uint64_t rows = arguments.rows;
    const std::uint64_t columns = file.size.value / sizeof(float) / rows;
    for_each_element<std::uint32_t>(file_, [&](std::uint64_t index, std::uint32_t element) {
      expected_.add(index % columns * rows + index / columns, element);
    });
  }

  std::string disagreement(const Result&) override { return expected_.disagreement(file_); }

 private:
  RunFile file_;
  Fingerprint expected_;
};

constexpr unsigned blocks_for(std::uint64_t elements, std::uint64_t per_block, std::uint64_t most) {
  return static_cast<unsigned>(std::min((elements + per_block - 1) / per_block, most));
}

/// A square matrix, two panels of rows at a time, as wide as a lease allows: each element and its mirror
/// image change places. For a file of k leases every byte crosses about 2 k times.
class SquareTranspose {
 public:
  SquareTranspose(Session& session, const Mapping& mapping, std::uint64_t columns)
      : session_(session),
        mapping_(mapping),
        columns_(columns),
        panel_rows_(std::min(columns, session.lease_bytes(2).value / 4 / columns)) {}

  /// Panels hold whole tiles, and panels that are no neighbours are at least a granule apart.
  bool is_possible() const noexcept { return panel_rows_ >= std::min<std::uint64_t>(kTile, columns_); }

  void run() {
    session_.progress().begin("exchanging tiles", mapping_.size_bytes());
    for (std::uint64_t upper = 0; upper < columns_; upper += panel_rows_) {
      for (std::uint64_t lower = upper; lower < columns_; lower += panel_rows_) exchange(upper, lower);
    }
  }

 private:
  void exchange(std::uint64_t upper, std::uint64_t lower) {
    const SquarePanels panels{columns_, upper, std::min(panel_rows_, columns_ - upper), lower,
                              std::min(panel_rows_, columns_ - lower)};
    const Grid grid{
        .blocks = {blocks_for(panels.lower_rows, kTile, ~0U), blocks_for(panels.upper_rows, kTile, ~0U), 1},
        .threads = {kTile, kTileRows, 1}};
    const std::uint64_t upper_end = upper + panels.upper_rows;
    const std::uint64_t lower_end = lower + panels.lower_rows;
    if (lower <= upper_end) {
      session_.run("swap_within", grid, SwapWithinKernel{panels},
                   read_write(mapping_, rows(upper, lower_end)));
    } else {
      session_.run("swap_panels", grid, SwapPanelsKernel{panels},
                   read_write(mapping_, rows(upper, upper_end)),
                   read_write(mapping_, rows(lower, lower_end)));
    }
    const std::uint64_t placed = panels.upper_rows * panels.lower_rows * (upper == lower ? 1 : 2);
    session_.progress().advance(ByteCount{placed * 4});
  }

  ByteRange rows(std::uint64_t first, std::uint64_t last) const {
    return ElementRange{first * columns_, last * columns_}.bytes();
  }

  Session& session_;
  const Mapping& mapping_;
  std::uint64_t columns_;
  std::uint64_t panel_rows_;
};

/// A matrix of any shape, in place, by halving: both halves of the rows are transposed, and then the rows of
/// the two results are interleaved, pair by pair. Interleaving halves too: one rotation in the middle leaves
/// two smaller pairs of sequences to interleave (as in merging by rotation; Dudziński and Dydek 1981). What
/// fits a lease is done at once, by way of scratch memory. For a file of k leases this moves O(k log^2 k)
/// leases, and no shape is too large for the device.
class AnyTranspose {
 public:
  AnyTranspose(Session& session, const Mapping& mapping)
      : session_(session),
        mapping_(mapping),
        lease_elements_(session.lease_bytes(2).value / 4),
        scratch_(session.runtime(), std::min(session.lease_bytes(2), mapping.size_bytes())) {}

  void run(std::uint64_t rows, std::uint64_t columns) {
    session_.progress().begin("transposing by halves", ByteCount{rows_to_move(rows, columns) * columns * 4});
    transpose(0, rows, columns);
  }

 private:
  /// Rows that `transpose` and `interleave` report, counted once for each time.
  std::uint64_t rows_to_move(std::uint64_t rows, std::uint64_t columns) const {
    if (is_leaf(rows, columns)) return rows;
    return rows_to_move(rows / 2, columns) + rows_to_move(rows - rows / 2, columns) + rows;
  }

  bool is_leaf(std::uint64_t rows, std::uint64_t columns) const {
    return rows <= 1 || columns <= 1 || rows <= lease_elements_ / columns;
  }

  void transpose(std::uint64_t first, std::uint64_t rows, std::uint64_t columns) {
    const ElementRange all{first, first + rows * columns};
    if (is_leaf(rows, columns)) {
      if (rows > 1 && columns > 1) {
        const Grid tiles{.blocks = {blocks_for(columns, kTile, ~0U), blocks_for(rows, kTile, 65'535), 1},
                         .threads = {kTile, kTileRows, 1}};
        by_way_of_scratch("transpose", tiles, TransposeKernel{rows, columns}, all);
      }
      session_.progress().advance(all.bytes().size);
      return;
    }
    const std::uint64_t top = rows / 2;
    transpose(first, top, columns);
    transpose(first + top * columns, rows - top, columns);
    interleave(first, columns, top, rows - top);
  }

  /// `pieces` pieces of `left` elements are followed by as many of `right` elements.
  void interleave(std::uint64_t first, std::uint64_t pieces, std::uint64_t left, std::uint64_t right) {
    const ElementRange all{first, first + pieces * (left + right)};
    if (pieces == 1 || all.size() <= lease_elements_) {
      if (pieces > 1) {
        by_way_of_scratch("interleave", Grid::cover(all.size(), kThreads), InterleaveKernel{left, right},
                          all);
      }
      session_.progress().advance(all.bytes().size);
      return;
    }
    const std::uint64_t half = pieces / 2;
    const std::uint64_t middle = first + pieces * left;
    rotate(session_, mapping_, first + half * left, middle, middle + half * right);
    interleave(first, half, left, right);
    interleave(first + half * (left + right), pieces - half, left, right);
  }

  template <class Kernel>
  void by_way_of_scratch(const char* name, const Grid& grid, Kernel kernel, ElementRange range) {
    const ByteRange in_scratch{ByteOffset{0}, range.bytes().size};
    session_.run(name, grid, kernel, read(mapping_, range.bytes()), write(scratch_.mapping(), in_scratch));
    session_.run("copy", Grid::cover(range.size(), kThreads), CopyKernel{},
                 read(scratch_.mapping(), in_scratch), write(mapping_, range.bytes()));
  }

  static constexpr unsigned kThreads = 256;

  Session& session_;
  const Mapping& mapping_;
  std::uint64_t lease_elements_;
  Scratch scratch_;
};

void validate(const Arguments& arguments, std::span<const Mapping> files) {
  const std::uint64_t elements = files[0].size_bytes().value / sizeof(float);
  if (elements % arguments.rows != 0) {
    throw InputError(arguments.files[0] + ": " + std::to_string(elements) + " values do not make " +
                     std::to_string(arguments.rows) + " rows of equal length; give another --rows");
  }
}

Result run(Session& session, const Arguments& arguments, std::span<const Mapping> files) {
  const std::uint64_t rows = arguments.rows;
  const std::uint64_t columns = files[0].size_bytes().value / sizeof(float) / rows;
  const Result result{{"rows", columns}, {"columns", rows}};
  if (columns == 0) return result;
  if (rows == columns) {
    SquareTranspose square(session, files[0], columns);
    if (square.is_possible()) {
      square.run();
      return result;
    }
  }
  AnyTranspose(session, files[0]).run(rows, columns);
  return result;
}

}  // namespace

constinit const Workload transpose{
    .name = "transpose",
    .help = "transpose a matrix of float32 values of any shape, in place",
    .arguments = kArguments,
    .element_bytes = sizeof(float),
    .stoppable = false,
    .needs_disk_space = true,
    .validate = validate,
    .make_check = [](const Arguments& arguments, std::span<const RunFile> files) -> std::unique_ptr<Check> {
      return std::make_unique<TransposeCheck>(arguments, files[0]);
    },
    .run = run,
};

}  // namespace aprime::kernels
