#include "kernels/cg.hpp"

#include <fmt/format.h>

#include <cmath>

#include "kernels/csr_file.hpp"
#include "kernels/csr_product.hpp"
#include "kernels/plain_file.hpp"
#include "kernels/reference_sum.hpp"
#include "kernels/scratch.hpp"
#include "kernels/vectors.hpp"

namespace aprime::kernels {
namespace {

constexpr Argument kArguments[] = {
    {"MATRIX",
     "file of compressed sparse rows with float32 values (the README has the format); symmetric and positive "
     "definite",
     Access::read},
    {"B", "file of float32 values, one for each row", Access::read},
    {"X", "file of as many float32 values: the first guess, and then the solution", Access::read_write},
    {"--tolerance", "largest norm of B - A X that is wanted, as a part of the norm of B; 1e-5 if not given",
     &Arguments::tolerance, false},
    {"--iterations", "after how many to give up; 1000 if not given", &Arguments::iterations, false},
};

/// Recomputes the residual in double precision. Holds x in memory.
///
/// The device found the residual to be small enough in float: each of its elements is off by no more than a
/// sum of as many products as the row has non-zeros, and one more for b.
class CgCheck final : public Check {
 public:
  CgCheck(const Arguments& arguments, std::span<const RunFile> files)
      : files_(files.begin(), files.end()), tolerance_(arguments.tolerance) {}

  std::string disagreement(const Result&) override {
    std::vector<float> x;
    for_each_element<float>(files_[2], [&](std::uint64_t, float value) { x.push_back(value); });
    ElementReader<float> b(files_[1], 0);
    ReferenceSum residual;
    std::uint64_t terms = 0;
    double b_squared = 0;
    double residual_squared = 0;
    double slack_squared = 0;
    for_each_nonzero(
        files_[0],
        [&](std::uint64_t, std::uint32_t column, double value) {
          residual.add(-value * x.at(column));
          ++terms;
        },
        [&](std::uint64_t) {
          const double right = b.next();
          residual.add(right);
          b_squared += right * right;
          residual_squared += residual.value() * residual.value();
          const double slack = residual.tolerance(terms + 1);
          slack_squared += slack * slack;
          residual = {};
          terms = 0;
        });
    const double norm = std::sqrt(residual_squared);
    const double wanted = tolerance_ * std::sqrt(b_squared);
    if (norm <= wanted + std::sqrt(slack_squared)) return {};
    return fmt::format("the residual's norm is {}, more than {}", norm, wanted);
  }

 private:
  std::vector<RunFile> files_;
  double tolerance_;
};

void validate(const Arguments& arguments, std::span<const Mapping> files) {
  if (!std::isfinite(arguments.tolerance) || arguments.tolerance <= 0) {
    throw UsageError("--tolerance must be a finite number above 0");
  }
  const CsrFile matrix(files[0], true);
  matrix.require_square("a system of equations to solve");
  matrix.require_size(files[1], matrix.rows(), "rows");
  matrix.require_size(files[2], matrix.rows(), "rows");
}

/// The method of conjugate gradients (Hestenes and Stiefel, "Methods of conjugate gradients for solving
/// linear systems", Journal of Research of the NBS 49 (1952)), with vectors in float and dot products in
/// double.
///
/// The residual that the method carries along drifts away from the true one by rounding. Where it says that
/// the end is reached, the true one is computed, and the method starts again from there if that is too large.
///
/// What is out of the range of float is found before it comes into X, which holds a guess whatever happens.
class ConjugateGradients {
 public:
  ConjugateGradients(Session& session, const Arguments& arguments, const CsrFile& matrix, const Mapping& b,
                     const Mapping& x)
      : session_(session),
        arguments_(arguments),
        matrix_(matrix),
        b_(b),
        x_(x),
        residual_(session.runtime(), b.size_bytes()),
        direction_(session.runtime(), b.size_bytes()),
        product_(session.runtime(), b.size_bytes()) {}

  Result run() {
    session_.progress().begin("first residual", product_bytes(session_, matrix_));
    const double b_squared = dot(session_, b_, b_);
    const double goal = double{arguments_.tolerance} * arguments_.tolerance * b_squared;
    require_finite(b_squared, b_, "right sides");
    if (b_squared == 0) {
      // The residual of a solution of zeros, which is no number where a value of the matrix is infinite.
      fill(session_, direction_.mapping(), 0);
      compute_residual(direction_.mapping());
      fill(session_, x_, 0);
      return {{"iterations", iterations_}, {"residual", 0.0}};
    }
    const double x_squared = dot(session_, x_, x_);
    require_finite(x_squared, x_, "first guesses");
    x_norm_max_ = std::sqrt(x_squared);
    for (;;) {
      compute_residual(x_);
      const double residual = std::sqrt(squared_ / b_squared);
      if (squared_ <= goal) return {{"iterations", iterations_}, {"residual", residual}};
      if (iterations_ == arguments_.iterations) fail_after_all(residual);
      copy(session_, direction_.mapping(), residual_.mapping());
      direction_norm_max_ = std::sqrt(squared_);
      while (iterations_ < arguments_.iterations) {
        step();
        if (squared_ <= goal) break;
      }
    }
  }

 private:
  /// Squares of floats do not overflow in double.
  static void require_finite(double squared, const Mapping& vector, const std::string& values) {
    if (std::isfinite(squared)) return;
    throw InputError(vector.path() + ": has " + values +
                     " that are infinite or no numbers; all must be finite");
  }

  /// r = b - A x
  void compute_residual(const Mapping& x) {
    multiply(session_, matrix_, x, product_.mapping());
    copy(session_, residual_.mapping(), b_);
    combine(session_, 1, residual_.mapping(), -1, product_.mapping());
    squared_ = dot(session_, residual_.mapping(), residual_.mapping());
    if (std::isfinite(squared_)) return;
    throw InputError(matrix_.mapping().path() +
                     ": has values that are infinite or no numbers, or its product with " + x_.path() +
                     " is out of the range of float32");
  }

  void step() {
    ++iterations_;
    session_.progress().begin("iteration " + std::to_string(iterations_), product_bytes(session_, matrix_));
    const Mapping& direction = direction_.mapping();
    multiply(session_, matrix_, direction, product_.mapping());
    const double curvature = dot(session_, direction, product_.mapping());
    require_in_range(curvature);
    if (curvature <= 0) fail_for_curvature(curvature);
    const auto length = static_cast<float>(squared_ / curvature);
    require_in_range(length);
    combine(session_, 1, residual_.mapping(), -length, product_.mapping());
    const double before = squared_;
    squared_ = dot(session_, residual_.mapping(), residual_.mapping());
    require_in_range(squared_);
    add_to_solution(length);
    const auto kept = static_cast<float>(squared_ / before);
    require_in_range(kept);
    combine(session_, kept, direction, 1, residual_.mapping());
    direction_norm_max_ = kept * direction_norm_max_ + std::sqrt(squared_);
  }

  /// x += length * direction. What the product was is lost where a value might overflow: that is tried there.
  void add_to_solution(float length) {
    x_norm_max_ += length * direction_norm_max_;
    // Less than the largest float, because what it is compared with is rounded.
    constexpr double kNormMax = 1e38;
    if (x_norm_max_ > kNormMax) {
      copy(session_, product_.mapping(), x_);
      combine(session_, 1, product_.mapping(), length, direction_.mapping());
      const double x_squared = dot(session_, product_.mapping(), product_.mapping());
      require_in_range(x_squared);
      x_norm_max_ = std::sqrt(x_squared);
    }
    combine(session_, 1, x_, length, direction_.mapping());
  }

  /// What has overflown is infinite, or no number any more. The matrix and b are finite here.
  void require_in_range(double value) const {
    if (std::isfinite(value)) return;
    throw InputError(
        fmt::format("{}: the solution, or a step to it, is out of the range of float32, as is seen in "
                    "iteration {}; scale the system",
                    x_.path(), iterations_));
  }

  [[noreturn]] void fail_for_curvature(double curvature) const {
    throw InputError(
        fmt::format("{}: is not positive definite{}, as is seen in iteration {}; conjugate "
                    "gradients cannot solve such a system",
                    matrix_.mapping().path(),
                    curvature == 0 ? ", or its products are too small for float32" : "", iterations_));
  }

  [[noreturn]] void fail_after_all(double residual) const {
    throw InputError(fmt::format(
        "{}: holds no solution yet: after {} iterations the residual is {:g} of the norm of B; run again to "
        "go on from there, or give a larger --tolerance",
        x_.path(), iterations_, residual));
  }

  Session& session_;
  const Arguments& arguments_;
  const CsrFile& matrix_;
  const Mapping& b_;
  const Mapping& x_;
  Scratch residual_;
  Scratch direction_;
  Scratch product_;
  /// Square of the norm of the residual.
  double squared_ = 0;
  /// By the triangle inequality. No element is larger than the norm.
  double x_norm_max_ = 0;
  double direction_norm_max_ = 0;
  std::uint64_t iterations_ = 0;
};

Result run(Session& session, const Arguments& arguments, std::span<const Mapping> files) {
  const CsrFile matrix(files[0], true);
  matrix.check_arrays(session);
  return ConjugateGradients(session, arguments, matrix, files[1], files[2]).run();
}

}  // namespace

constinit const Workload cg{
    .name = "cg",
    .help = "solve A x = b for a sparse, symmetric and positive definite matrix by conjugate gradients",
    .arguments = kArguments,
    .element_bytes = 1,
    .stoppable = true,
    .needs_disk_space = false,
    .validate = validate,
    .make_check = [](const Arguments& arguments, std::span<const RunFile> files) -> std::unique_ptr<Check> {
      return std::make_unique<CgCheck>(arguments, files);
    },
    .run = run,
};

}  // namespace aprime::kernels
