#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "aprime/mapping.hpp"
#include "kernels/plain_file.hpp"
#include "kernels/session.hpp"

namespace aprime::kernels {

/// First bytes of a file that holds a sparse matrix, or a graph (vertex r has an edge to each column of row
/// r), by compressed sparse rows. All numbers are little-endian; arrays may lie in any order, with gaps.
struct CsrHeader {
  static constexpr char kMagic[8] = {'A', 'P', 'R', 'I', 'M', 'C', 'S', 'R'};
  static constexpr std::uint32_t kVersion = 1;

  char magic[8];
  std::uint32_t version;
  /// 0: no values; 1: float32.
  std::uint32_t value_type;
  std::uint64_t rows;
  std::uint64_t columns;
  std::uint64_t nonzeros;
  /// Where in the file the arrays begin, in bytes, each a multiple of its element's size:
  /// rows + 1 uint64 numbers, of which the r-th says where in the other arrays row r begins;
  std::uint64_t offsets_at;
  /// the column of each non-zero, from 0, uint32;
  std::uint64_t columns_at;
  /// the value of each non-zero. Without meaning where there are no values.
  std::uint64_t values_at;
};
static_assert(sizeof(CsrHeader) == 64);

struct CsrProblems;

/// A mapped file with a `CsrHeader`.
class CsrFile {
 public:
  /// Checks the header, and that the arrays lie within the file. The mapping must outlive it. \throws
  /// InputError
  CsrFile(const Mapping& mapping, bool needs_values);

  const Mapping& mapping() const noexcept { return *mapping_; }
  std::uint64_t rows() const noexcept { return header_.rows; }
  std::uint64_t columns() const noexcept { return header_.columns; }
  std::uint64_t nonzeros() const noexcept { return header_.nonzeros; }

  /// \throws InputError if it has not as many columns as rows; `what` needs that
  void require_square(const std::string& what) const;
  /// \throws InputError if a vector has not `elements` values
  void require_size(const Mapping& vector, std::uint64_t elements, const char* dimension) const;

  /// Checks, on the device, that rows begin in order and that no column is out of range. \throws InputError
  /// that says which one is wrong
  void check_arrays(Session& session) const;

  /// \throws InputError if a kernel has found something wrong
  void require_none(const CsrProblems& problems) const;

  /// Where a row's non-zeros begin; for `rows()`, where the last one's end.
  std::uint64_t offset(std::uint64_t row) const;

  /// Bytes of the offsets of `count` rows and of the row after them.
  ByteRange offset_bytes(std::uint64_t row, std::uint64_t count) const;
  ByteRange column_bytes(std::uint64_t entry, std::uint64_t count) const;
  ByteRange value_bytes(std::uint64_t entry, std::uint64_t count) const;

 private:
  [[noreturn]] void refuse(const std::string& what) const;
  void require_array(const char* name, std::uint64_t at, std::uint64_t count, std::uint64_t size) const;

  const Mapping* mapping_;
  CsrHeader header_{};
};

/// Calls `visit(row, column, value)` for each non-zero, in order, and `end_row(row)` after each row. Reads by
/// read(2), in bounded memory, for checks. \pre the file has been found to be right
template <class Visit, class EndRow>
void for_each_nonzero(const RunFile& file, Visit visit, EndRow end_row) {
  CsrHeader header{};
  PlainFile(file).next(std::as_writable_bytes(std::span(&header, 1)));
  ElementReader<std::uint64_t> offsets(file, header.offsets_at);
  ElementReader<std::uint32_t> columns(file, header.columns_at);
  ElementReader<float> values(file, header.values_at);
  std::uint64_t entry = offsets.next();
  for (std::uint64_t row = 0; row < header.rows; ++row) {
    for (const std::uint64_t end = offsets.next(); entry < end; ++entry) {
      const std::uint32_t column = columns.next();
      visit(row, column, values.next());
    }
    end_row(row);
  }
}

}  // namespace aprime::kernels
