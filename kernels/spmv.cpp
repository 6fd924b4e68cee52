#include "kernels/spmv.hpp"

#include <fmt/format.h>

#include "kernels/csr_file.hpp"
#include "kernels/csr_product.hpp"
#include "kernels/plain_file.hpp"
#include "kernels/reference_sum.hpp"

namespace aprime::kernels {
namespace {

constexpr Argument kArguments[] = {
    {"MATRIX", "file of compressed sparse rows with float32 values (the README has the format)",
     Access::read},
    {"X", "file of float32 values, one for each column", Access::read},
    {"Y", "file for the product, one float32 value for each row; what it holds is replaced",
     Access::read_write},
};

/// Recomputes the product in double precision. Holds x in memory.
class SpmvCheck final : public Check {
 public:
  explicit SpmvCheck(std::span<const RunFile> files) : files_(files.begin(), files.end()) {}

  std::string disagreement(const Result&) override {
    std::vector<float> x;
    for_each_element<float>(files_[1], [&](std::uint64_t, float value) { x.push_back(value); });
    ElementReader<float> y(files_[2], 0);
    ReferenceSum sum;
    std::uint64_t terms = 0;
    std::string first;
    for_each_nonzero(
        files_[0],
        [&](std::uint64_t, std::uint32_t column, double value) {
          sum.add(value * x.at(column));
          ++terms;
        },
        [&](std::uint64_t row) {
          const float actual = y.next();
          if (first.empty() && !sum.accepts(actual, terms)) {
            first = fmt::format("row {} is {}; the CPU gets {}", row, actual, sum.value());
          }
          sum = {};
          terms = 0;
        });
    return first;
  }

 private:
  std::vector<RunFile> files_;
};

void validate(const Arguments&, std::span<const Mapping> files) {
  const CsrFile matrix(files[0], true);
  matrix.require_size(files[1], matrix.columns(), "columns");
  matrix.require_size(files[2], matrix.rows(), "rows");
}

Result run(Session& session, const Arguments&, std::span<const Mapping> files) {
  const CsrFile matrix(files[0], true);
  matrix.check_arrays(session);
  session.progress().begin("multiplying", product_bytes(session, matrix));
  multiply(session, matrix, files[1], files[2]);
  return {{"rows", matrix.rows()}, {"columns", matrix.columns()}, {"nonzeros", matrix.nonzeros()}};
}

}  // namespace

constinit const Workload spmv{
    .name = "spmv",
    .help = "y = A x for a sparse matrix",
    .arguments = kArguments,
    .element_bytes = 1,
    .stoppable = true,
    .needs_disk_space = false,
    .validate = validate,
    .make_check = [](const Arguments&, std::span<const RunFile> files) -> std::unique_ptr<Check> {
      return std::make_unique<SpmvCheck>(files);
    },
    .run = run,
};

}  // namespace aprime::kernels
