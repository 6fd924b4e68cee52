#include "kernels/matmul.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "kernels/matmul_kernel.hpp"
#include "kernels/plain_file.hpp"
#include "kernels/reference_sum.hpp"

namespace aprime::kernels {
namespace {

constexpr Argument kArguments[] = {
    {"A", "file of float32 values, row by row", Access::read},
    {"B", "file of float32 values, row by row, with as many rows as A has columns", Access::read},
    {"C", "file for the product, of the right size; what it holds is replaced", Access::read_write},
    {"--rows", "number of rows of A; all else follows from the sizes", &Arguments::rows},
};

struct Shape {
  std::uint64_t rows;
  std::uint64_t inner;
  std::uint64_t columns;
};

/// Of A x B, when `validate` has let the sizes pass.
Shape shape_of(std::uint64_t rows, std::uint64_t a_elements, std::uint64_t b_elements) {
  const std::uint64_t inner = a_elements / rows;
  return {rows, inner, inner == 0 ? 0 : b_elements / inner};
}

/// Recomputes the product in double precision, as many rows of C at a time as bounded memory holds (one at
/// least), with one pass over B for each such panel.
class MatmulCheck final : public Check {
 public:
  MatmulCheck(const Arguments& arguments, std::span<const RunFile> files)
      : files_(files.begin(), files.end()),
        shape_(shape_of(arguments.rows, files[0].size.value / sizeof(float),
                        files[1].size.value / sizeof(float))) {}

  std::string disagreement(const Result&) override {
    PlainFile a(files_[0]);
    PlainFile c(files_[2]);
    if (shape_.columns == 0) return {};
    const std::uint64_t widest = std::max(shape_.inner, shape_.columns);
    const std::uint64_t panel = std::clamp<std::uint64_t>(kPanelElements / widest, 1, shape_.rows);
    for (std::uint64_t first = 0; first < shape_.rows; first += panel) {
      const std::uint64_t rows = std::min(panel, shape_.rows - first);
      std::vector<float> a_panel(rows * shape_.inner);
      std::vector<float> c_panel(rows * shape_.columns);
      a.next(std::as_writable_bytes(std::span(a_panel)));
      c.next(std::as_writable_bytes(std::span(c_panel)));
      multiply(a_panel, rows);
      for (std::uint64_t i = 0; i < c_panel.size(); ++i) {
        if (sums_[i].accepts(c_panel[i], shape_.inner)) continue;
        return fmt::format("row {}, column {} is {}; the CPU gets {}", first + i / shape_.columns,
                           i % shape_.columns, c_panel[i], sums_[i].value());
      }
    }
    return {};
  }

 private:
  static constexpr std::uint64_t kPanelElements = std::uint64_t{1} << 21;

  void multiply(std::span<const float> a_panel, std::uint64_t rows) {
    sums_.assign(rows * shape_.columns, {});
    PlainFile b(files_[1]);
    std::vector<float> b_row(shape_.columns);
    for (std::uint64_t k = 0; k < shape_.inner; ++k) {
      b.next(std::as_writable_bytes(std::span(b_row)));
      for (std::uint64_t row = 0; row < rows; ++row) {
        const double factor = a_panel[row * shape_.inner + k];
        for (std::uint64_t column = 0; column < shape_.columns; ++column) {
          sums_[row * shape_.columns + column].add(factor * b_row[column]);
        }
      }
    }
  }

  std::vector<RunFile> files_;
  Shape shape_;
  std::vector<ReferenceSum> sums_;
};

std::string count_of(const std::string& path, std::uint64_t elements) {
  return path + ": holds " + std::to_string(elements) + " values";
}

/// As one word of a shell.
std::string quoted(const std::string& path) {
  std::string word = "'";
  for (const char c : path) word += c == '\'' ? "'\\''" : std::string(1, c);
  return word + "'";
}

void validate(const Arguments& arguments, std::span<const Mapping> files) {
  const std::uint64_t rows = arguments.rows;
  const std::uint64_t a = files[0].size<float>();
  const std::uint64_t b = files[1].size<float>();
  const std::uint64_t c = files[2].size<float>();
  if (a % rows != 0) {
    throw InputError(count_of(arguments.files[0], a) + ", which do not make " + std::to_string(rows) +
                     " rows of equal length; give another --rows");
  }
  const std::uint64_t inner = a / rows;
  if (inner == 0 ? b != 0 : b % inner != 0) {
    throw InputError(count_of(arguments.files[1], b) + ", which do not make " + std::to_string(inner) +
                     " rows of equal length, one for each column of A; give another --rows");
  }
  const Shape shape = shape_of(rows, a, b);
  constexpr auto kValuesMax = std::uint64_t{std::numeric_limits<off_t>::max()} / sizeof(float);
  std::uint64_t product = 0;
  const bool has_room = !__builtin_mul_overflow(shape.rows, shape.columns, &product) && product <= kValuesMax;
  if (!has_room || c != product) {
    throw InputError(fmt::format("{}, but the product has {} rows of {}{}", count_of(arguments.files[2], c),
                                 shape.rows, shape.columns,
                                 has_room ? fmt::format("; give it that size with: truncate --size {} -- {}",
                                                        product * sizeof(float), quoted(arguments.files[2]))
                                          : ", which is larger than any file"));
  }
}

/// The product part by part: parts of C, and for each of them the parts of A and B along the inner dimension.
/// What is leased of a matrix is one run of bytes: whole rows, or a part of one row. Between two parts an
/// interrupt is heeded, so that they are limited in work, too.
class Multiplication {
 public:
  Multiplication(Session& session, std::span<const Mapping> files, const Shape& shape)
      : session_(session), files_(files), shape_(shape), part_(shape) {
    const std::uint64_t lease = session.lease_bytes(3).value / sizeof(float);
    const bool rows_fit = shape.inner <= lease && shape.columns <= lease;
    part_.rows = rows_fit ? std::min(shape.rows, lease / std::max(shape.inner, shape.columns)) : 1;
    part_.inner = std::min(shape.inner, std::max<std::uint64_t>(lease / shape.columns, 1));
    part_.columns = std::min(shape.columns, lease);
    // At the edges the kernel computes whole tiles. Along the inner dimension parts cost least: C stays where
    // it is.
    const bool is_gpu = session.runtime().devices().front().name == "cuda";
    const std::uint64_t work = is_gpu ? kGpuProductsMax : kCpuProductsMax;
    const std::uint64_t columns = whole_tiles(part_.columns);
    part_.rows = std::min(part_.rows, whole_tiles(work / MatmulKernel::kTile / columns));
    part_.inner = std::clamp<std::uint64_t>(work / columns / whole_tiles(part_.rows), 1, part_.inner);
  }

  void run() {
    const std::uint64_t column_parts = (shape_.columns + part_.columns - 1) / part_.columns;
    session_.progress().begin("multiplying", ByteCount{files_[0].size_bytes().value * column_parts});
    for (std::uint64_t row = 0; row < shape_.rows; row += part_.rows) {
      for (std::uint64_t column = 0; column < shape_.columns; column += part_.columns) {
        for (std::uint64_t k = 0; k < shape_.inner; k += part_.inner) multiply(row, k, column);
      }
    }
  }

 private:
  /// What takes a second or so: of emulated devices on a slow machine, and less than a tenth of it on a GPU.
  static constexpr std::uint64_t kCpuProductsMax = std::uint64_t{1} << 29;
  static constexpr std::uint64_t kGpuProductsMax = std::uint64_t{1} << 36;

  /// One at least.
  static std::uint64_t whole_tiles(std::uint64_t extent) {
    constexpr std::uint64_t kTile = MatmulKernel::kTile;
    return std::max<std::uint64_t>((extent + kTile - 1) / kTile, 1) * kTile;
  }

  void multiply(std::uint64_t row, std::uint64_t k, std::uint64_t column) {
    const MatmulKernel kernel{.rows = std::min(part_.rows, shape_.rows - row),
                              .inner = std::min(part_.inner, shape_.inner - k),
                              .columns = std::min(part_.columns, shape_.columns - column),
                              .a_pitch = shape_.inner,
                              .b_and_c_pitch = shape_.columns,
                              .adds = k != 0};
    constexpr std::uint64_t kTile = MatmulKernel::kTile;
    const Grid grid{.blocks = {static_cast<unsigned>((kernel.columns + kTile - 1) / kTile),
                               static_cast<unsigned>(std::min<std::uint64_t>(
                                   (kernel.rows + kTile - 1) / kTile, grid_extent_max.y)),
                               1},
                    .threads = {MatmulKernel::kTile, MatmulKernel::kTileRows, 1}};
    const auto a = read(files_[0], part(shape_.inner, row, k, kernel.rows, kernel.inner));
    const auto b = read(files_[1], part(shape_.columns, k, column, kernel.inner, kernel.columns));
    const ByteRange c = part(shape_.columns, row, column, kernel.rows, kernel.columns);
    if (kernel.adds) {
      session_.run("matmul", grid, kernel, a, b, read_write(files_[2], c));
    } else {
      session_.run("matmul", grid, kernel, a, b, write(files_[2], c));
    }
    session_.progress().advance(ByteCount{kernel.rows * kernel.inner * sizeof(float)});
  }

  /// From the first to the last element of a part of a matrix.
  static ByteRange part(std::uint64_t pitch, std::uint64_t first_row, std::uint64_t first_column,
                        std::uint64_t rows, std::uint64_t columns) {
    return {ByteOffset{(first_row * pitch + first_column) * sizeof(float)},
            ByteCount{((rows - 1) * pitch + columns) * sizeof(float)}};
  }

  Session& session_;
  std::span<const Mapping> files_;
  Shape shape_;
  /// The size of a part, where there is no less left.
  Shape part_;
};

Result run(Session& session, const Arguments& arguments, std::span<const Mapping> files) {
  const Shape shape = shape_of(arguments.rows, files[0].size<float>(), files[1].size<float>());
  if (shape.columns != 0) Multiplication(session, files, shape).run();
  return {{"rows", shape.columns == 0 ? 0 : shape.rows}, {"columns", shape.columns}};
}

}  // namespace

constinit const Workload matmul{
    .name = "matmul",
    .help = "C = A x B for matrices of float32 values",
    .arguments = kArguments,
    .element_bytes = sizeof(float),
    .stoppable = true,
    .needs_disk_space = false,
    .validate = validate,
    .make_check = [](const Arguments& arguments, std::span<const RunFile> files) -> std::unique_ptr<Check> {
      return std::make_unique<MatmulCheck>(arguments, files);
    },
    .run = run,
};

}  // namespace aprime::kernels
