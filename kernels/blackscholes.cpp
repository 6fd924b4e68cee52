#include "kernels/blackscholes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/blackscholes_kernel.hpp"
#include "kernels/plain_file.hpp"

namespace aprime::kernels {
namespace {

constexpr Argument kArguments[] = {
    {"FILE",
     "file of records of 5 float32 values: spot, strike, years to expiry; call and put, which are stored to",
     Access::read_write},
    {"--rate", "riskless interest rate, continuously compounded, per year (0.05 is 5 %)", &Arguments::rate},
    {"--volatility", "volatility of the asset per year (0.2 is 20 %)", &Arguments::volatility},
};

/// Standard normal distribution by the complementary error function, to double precision.
double normal_cdf_by_cpu(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

/// A price and by how much a right one may differ from it.
struct Price {
  double value;
  double tolerance;
  /// Of the two terms that it is the difference of.
  double sum;
};

/// The formula in double precision, which has room for whatever floats make of it.
class CpuOption {
 public:
  CpuOption(const OptionRecord& option, double rate, double volatility)
      : spot_(option.spot), strike_(option.strike * std::exp(-rate * option.years)) {
    const double distance = std::log(option.spot / double{option.strike});
    const double growth = rate * option.years;
    const double deviation = volatility * std::sqrt(double{option.years});
    const double middle = (distance + growth) / deviation;
    d1_ = middle + 0.5 * deviation;
    d2_ = middle - 0.5 * deviation;
    // How far off d1 and d2 may be in the kernel, in units of 2^-24: each operation by 1 of its result, log()
    // and log1p(), with 2 ulp, by 4. The logarithm is off by 7 of itself: by 4, and by 1.44 where its
    // argument is rounded; or, as a difference of two, by 4 of each, which have 1.37 of its magnitude at the
    // most, and by 1. The sum adds 1, the quotient 3 with its divisor's 2, and the end 1: that is 12 of the
    // distance, 5 of the growth and 3 of half the deviation. One more is for errors of errors.
    const double slack =
        in_float(13 * ((std::fabs(distance) + std::fabs(growth)) / deviation + 0.5 * deviation));
    // A discount's exponential is off by its argument's error, and by 22 as the product of 4 roots.
    tolerance_ = spot_ * cdf_error(d1_, slack) +
                 strike_ * (cdf_error(d2_, slack) + in_float(24 + 2 * std::fabs(growth))) +
                 2 * std::numeric_limits<float>::min();
  }

  Price call() const { return difference(spot_ * normal_cdf_by_cpu(d1_), strike_ * normal_cdf_by_cpu(d2_)); }
  Price put() const { return difference(strike_ * normal_cdf_by_cpu(-d2_), spot_ * normal_cdf_by_cpu(-d1_)); }

 private:
  Price difference(double a, double b) const { return {a - b, tolerance_, a + b}; }

  static double in_float(double units) { return std::ldexp(units, -24); }

  /// By what a probability may differ from that of x if its argument differs by `slack`: at most so much
  /// times the largest density that it may have met. And by the kernel's own error: 6.2 units, as the
  /// formula's value for each float shows, with 2 ulp for exp(), and 3 more for the products and the
  /// difference.
  static double cdf_error(double x, double slack) {
    const double nearest = std::max(std::fabs(x) - slack, 0.0);
    return in_float(10) + std::min(0.4 * slack * std::exp(-0.5 * nearest * nearest), 1.0);
  }

  double spot_;
  /// Discounted.
  double strike_;
  double d1_ = 0;
  double d2_ = 0;
  double tolerance_ = 0;
};

/// Beyond what float can hold nothing is promised.
bool is_right(double actual, const Price& price) {
  if (!(price.sum + price.tolerance < std::numeric_limits<float>::max())) return true;
  return std::fabs(actual - price.value) <= price.tolerance;
}

bool is_priceable(const OptionRecord& option) {
  for (const float x : {option.spot, option.strike, option.years}) {
    if (!std::isfinite(x) || x <= 0) return false;
  }
  return true;
}

class BlackScholesCheck final : public Check {
 public:
  BlackScholesCheck(const Arguments& arguments, const RunFile& file)
      : file_(file), rate_(arguments.rate), volatility_(arguments.volatility) {}

  std::string disagreement(const Result&) override {
    std::string first;
    for_each_element<OptionRecord>(file_, [&](std::uint64_t index, const OptionRecord& option) {
      if (first.empty() && !is_right_record(option)) {
        first = fmt::format("record {} says call {}, put {}; the CPU gets {}", index, option.call, option.put,
                            expected(option));
      }
    });
    return first;
  }

 private:
  bool is_right_record(const OptionRecord& option) const {
    if (!is_priceable(option)) return std::isnan(option.call) && std::isnan(option.put);
    const CpuOption right(option, rate_, volatility_);
    return is_right(option.call, right.call()) && is_right(option.put, right.put());
  }

  std::string expected(const OptionRecord& option) const {
    if (!is_priceable(option)) return "NaN, because it is no option";
    const CpuOption right(option, rate_, volatility_);
    return fmt::format("{} and {}", right.call().value, right.put().value);
  }

  RunFile file_;
  double rate_;
  double volatility_;
};

void validate(const Arguments& arguments, std::span<const Mapping>) {
  if (!std::isfinite(arguments.rate)) throw UsageError("--rate must be a finite number");
  if (!std::isfinite(arguments.volatility) || arguments.volatility <= 0) {
    throw UsageError("--volatility must be a finite number above 0");
  }
}

Result run(Session& session, const Arguments& arguments, std::span<const Mapping> files) {
  const std::uint64_t lease = session.lease_bytes(1).value;
  // Whole records, and whole granules too where there is room for that: pieces that share a granule cannot be
  // on the device side by side.
  const std::uint64_t both = std::lcm<std::uint64_t>(sizeof(OptionRecord), session.granule().value);
  const std::uint64_t unit = both <= lease ? both : sizeof(OptionRecord);
  const ByteCount chunk{lease / unit * unit};
  session.stream("pricing", files[0].size_bytes(), chunk, [&](ByteRange range) {
    session.queue("blackscholes",
                  Grid::cover(range.size.value / sizeof(OptionRecord), BlackScholesKernel::kThreads),
                  BlackScholesKernel{arguments.rate, arguments.volatility}, read_write(files[0], range));
  });
  return {{"options", std::uint64_t{files[0].size<OptionRecord>()}}};
}

}  // namespace

constinit const Workload blackscholes{
    .name = "blackscholes",
    .help =
        "price European options by the Black-Scholes formula, in place; records whose spot, strike or years "
        "are not above 0 get NaN",
    .arguments = kArguments,
    .element_bytes = sizeof(OptionRecord),
    .stoppable = true,
    .needs_disk_space = false,
    .validate = validate,
    .make_check = [](const Arguments& arguments, std::span<const RunFile> files) -> std::unique_ptr<Check> {
      return std::make_unique<BlackScholesCheck>(arguments, files[0]);
    },
    .run = run,
};

}  // namespace aprime::kernels
