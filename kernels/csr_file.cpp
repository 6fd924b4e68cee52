#include "kernels/csr_file.hpp"

#include <cstring>

#include "kernels/csr_kernel.hpp"
#include "kernels/scratch.hpp"

namespace aprime::kernels {
namespace {

constexpr unsigned kThreads = 256;
constexpr std::uint64_t kColumnsMax = std::uint64_t{1} << 32;

}  // namespace

CsrFile::CsrFile(const Mapping& mapping, bool needs_values) : mapping_(&mapping) {
  if (mapping.size_bytes().value < sizeof header_) {
    refuse("is no file of compressed sparse rows: it has " + std::to_string(mapping.size_bytes().value) +
           " bytes, and the header alone takes " + std::to_string(sizeof header_));
  }
  mapping.read(ByteOffset{0}, std::as_writable_bytes(std::span(&header_, 1)));
  if (std::memcmp(header_.magic, CsrHeader::kMagic, sizeof header_.magic) != 0) {
    refuse("is no file of compressed sparse rows: it does not begin with APRIMCSR");
  }
  if (header_.version != CsrHeader::kVersion) {
    refuse("has version " + std::to_string(header_.version) + " of the format; this program knows version " +
           std::to_string(CsrHeader::kVersion));
  }
  if (header_.value_type > 1) {
    refuse("has values of the unknown type " + std::to_string(header_.value_type) +
           "; known are 0, none, and 1, float32");
  }
  if (needs_values && header_.value_type != 1) refuse("has no values; give a matrix with float32 values");
  if (header_.columns > kColumnsMax) refuse("has more than 2^32 columns, which 32 bits cannot number");
  if (header_.rows + 1 == 0) refuse("has more rows than any file can hold");
  require_array("row offsets", header_.offsets_at, header_.rows + 1, sizeof(std::uint64_t));
  require_array("columns", header_.columns_at, header_.nonzeros, sizeof(std::uint32_t));
  if (header_.value_type == 1) require_array("values", header_.values_at, header_.nonzeros, sizeof(float));
  if (offset(0) != 0) refuse("says that row 0 begins at non-zero " + std::to_string(offset(0)) + ", not 0");
  if (offset(header_.rows) != header_.nonzeros) {
    refuse("says that the last row ends at non-zero " + std::to_string(offset(header_.rows)) + " of " +
           std::to_string(header_.nonzeros));
  }
}

void CsrFile::refuse(const std::string& what) const { throw InputError(mapping_->path() + ": " + what); }

void CsrFile::require_array(const char* name, std::uint64_t at, std::uint64_t count,
                            std::uint64_t size) const {
  const std::uint64_t bytes = mapping_->size_bytes().value;
  if (at % size != 0 || at < sizeof header_) {
    refuse(std::string("has its ") + name + " at byte " + std::to_string(at) +
           ", which must be after the header and a multiple of " + std::to_string(size));
  }
  if (at > bytes || count > (bytes - at) / size) {
    refuse(std::string("ends before its ") + name + " do: " + std::to_string(count) + " of " +
           std::to_string(size) + " bytes from byte " + std::to_string(at) + " do not fit a file of " +
           std::to_string(bytes) + " bytes");
  }
}

void CsrFile::require_square(const std::string& what) const {
  if (rows() != columns()) {
    refuse("has " + std::to_string(rows()) + " rows and " + std::to_string(columns()) + " columns; " + what +
           " needs as many of one as of the other");
  }
}

void CsrFile::require_size(const Mapping& vector, std::uint64_t elements, const char* dimension) const {
  if (vector.size_bytes().value == elements * sizeof(float)) return;
  throw InputError(vector.path() + ": has " + std::to_string(vector.size_bytes().value) + " bytes, but " +
                   mapping_->path() + " has " + std::to_string(elements) + " " + dimension +
                   "; give a file of as many float32 values, " + std::to_string(elements * sizeof(float)) +
                   " bytes");
}

void CsrFile::check_arrays(Session& session) const {
  const Scratch scratch(session.runtime(), ByteCount{sizeof(CsrProblems)});
  CsrProblems problems;
  scratch.mapping().write(ByteOffset{0}, std::as_bytes(std::span(&problems, 1)));
  const std::uint64_t lease = session.lease_bytes(1, ByteCount{sizeof problems}).value;
  const std::uint64_t rows_max = lease / sizeof(std::uint64_t) - 1;
  const std::uint64_t entries_max = lease / sizeof(std::uint32_t);
  session.progress().begin("checking the matrix", column_bytes(0, nonzeros()).size);
  for (std::uint64_t row = 0; row < rows(); row += rows_max) {
    const std::uint64_t count = std::min(rows_max, rows() - row);
    session.run("csr_offsets", Grid::cover(count, kThreads), CsrOffsetsKernel{row, nonzeros()},
                read(*mapping_, offset_bytes(row, count)), read_write(scratch.mapping()));
    session.progress().advance(ByteCount{0});
  }
  for (std::uint64_t entry = 0; entry < nonzeros(); entry += entries_max) {
    const ByteRange range = column_bytes(entry, std::min(entries_max, nonzeros() - entry));
    session.run("csr_columns", Grid::cover(range.size.value / sizeof(std::uint32_t), kThreads),
                CsrColumnsKernel{entry, columns()}, read(*mapping_, range), read_write(scratch.mapping()));
    session.progress().advance(range.size);
  }
  scratch.read(std::span(&problems, 1));
  require_none(problems);
}

void CsrFile::require_none(const CsrProblems& problems) const {
  if (problems.row != CsrProblems::kNone) {
    refuse("says that row " + std::to_string(problems.row) + " ends at non-zero " +
           std::to_string(offset(problems.row + 1)) + ", which is before it begins or after the last");
  }
  if (problems.entry != CsrProblems::kNone) {
    refuse("has a column out of range in its non-zero " + std::to_string(problems.entry) + "; there are " +
           std::to_string(columns()) + " columns");
  }
}

std::uint64_t CsrFile::offset(std::uint64_t row) const {
  std::uint64_t value = 0;
  mapping_->read(ByteOffset{header_.offsets_at + row * sizeof value},
                 std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

ByteRange CsrFile::offset_bytes(std::uint64_t row, std::uint64_t count) const {
  return {ByteOffset{header_.offsets_at + row * sizeof(std::uint64_t)},
          ByteCount{(count + 1) * sizeof(std::uint64_t)}};
}

ByteRange CsrFile::column_bytes(std::uint64_t entry, std::uint64_t count) const {
  return {ByteOffset{header_.columns_at + entry * sizeof(std::uint32_t)},
          ByteCount{count * sizeof(std::uint32_t)}};
}

ByteRange CsrFile::value_bytes(std::uint64_t entry, std::uint64_t count) const {
  return {ByteOffset{header_.values_at + entry * sizeof(float)}, ByteCount{count * sizeof(float)}};
}

}  // namespace aprime::kernels
