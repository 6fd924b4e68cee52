#include "kernels/csr_product.hpp"

#include <algorithm>
#include <bit>

#include "kernels/csr_kernel.hpp"
#include "kernels/vectors.hpp"

namespace aprime::kernels {
namespace {

constexpr std::uint64_t kEntryBytes = sizeof(std::uint32_t) + sizeof(float);

/// What is left of the product for one part of x, in the order of the non-zeros.
class Pass {
 public:
  Pass(Session& session, const CsrFile& matrix, const Mapping& x, ByteRange x_part, const Mapping& y)
      : session_(session), matrix_(matrix), x_(x), x_part_(x_part), y_(y) {
    const std::uint64_t lease = session.lease_bytes(5).value;
    rows_max_ = lease / sizeof(std::uint64_t) - 1;
    entries_max_ = lease / sizeof(float);
    const std::uint64_t mean = matrix.nonzeros() / std::max<std::uint64_t>(matrix.rows(), 1);
    lanes_ = static_cast<unsigned>(std::bit_floor(std::clamp<std::uint64_t>(mean / 4, 1, warp_lanes)));
  }

  void run() {
    while (row_ < matrix_.rows()) {
      const std::uint64_t rows_end = std::min(row_ + rows_max_, matrix_.rows());
      const std::uint64_t all = matrix_.offset(rows_end);
      const std::uint64_t end = std::min(all, entry_ + entries_max_);
      if (end == entry_) {
        // Rows without non-zeros only; they are 0 already.
        row_ = rows_end;
        session_.progress().advance(ByteCount{0});
        continue;
      }
      const std::uint64_t row_end = row_that_reaches(end, rows_end);
      launch(row_end, end);
      // A row with more non-zeros than there was room for goes on in the next launch. Behind the last of all
      // there are only rows without any.
      row_ = end == all ? rows_end : matrix_.offset(row_end) <= end ? row_end : row_end - 1;
      entry_ = end;
    }
  }

 private:
  /// The first row after `row_`, and `rows_end` at the latest, that begins at non-zero `entry` or later.
  std::uint64_t row_that_reaches(std::uint64_t entry, std::uint64_t rows_end) const {
    std::uint64_t low = row_ + 1;
    std::uint64_t high = rows_end;
    // Nearly always all rows that have room.
    if (low < high && matrix_.offset(high - 1) < entry) return high;
    while (low < high) {
      const std::uint64_t middle = low + (high - low) / 2;
      if (matrix_.offset(middle) < entry) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  void launch(std::uint64_t row_end, std::uint64_t entry_end) {
    const std::uint64_t rows = row_end - row_;
    const std::uint64_t entries = entry_end - entry_;
    const ByteRange y_part{ByteOffset{row_ * sizeof(float)}, ByteCount{rows * sizeof(float)}};
    session_.run("spmv", Grid::cover(rows * lanes_, SpmvKernel::kThreads),
                 SpmvKernel{entry_, x_part_.first.value / sizeof(float), lanes_},
                 read(matrix_.mapping(), matrix_.offset_bytes(row_, rows)),
                 read(matrix_.mapping(), matrix_.column_bytes(entry_, entries)),
                 read(matrix_.mapping(), matrix_.value_bytes(entry_, entries)), read(x_, x_part_),
                 read_write(y_, y_part));
    session_.progress().advance(ByteCount{entries * kEntryBytes});
  }

  Session& session_;
  const CsrFile& matrix_;
  const Mapping& x_;
  ByteRange x_part_;
  const Mapping& y_;
  std::uint64_t rows_max_;
  std::uint64_t entries_max_;
  unsigned lanes_;
  std::uint64_t row_ = 0;
  std::uint64_t entry_ = 0;
};

}  // namespace

void multiply(Session& session, const CsrFile& matrix, const Mapping& x, const Mapping& y) {
  fill(session, y, 0);
  Session::for_each_range(x.size_bytes(), session.lease_bytes(5),
                          [&](ByteRange part) { Pass(session, matrix, x, part, y).run(); });
}

ByteCount product_bytes(const Session& session, const CsrFile& matrix) {
  const std::uint64_t part = session.lease_bytes(5).value;
  const std::uint64_t parts = (matrix.columns() * sizeof(float) + part - 1) / part;
  return ByteCount{matrix.nonzeros() * kEntryBytes * parts};
}

}  // namespace aprime::kernels
