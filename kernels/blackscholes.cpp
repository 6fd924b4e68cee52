#include "kernels/blackscholes.hpp"

#include <fmt/format.h>

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

/// The formula in double precision.
class CpuOption {
 public:
  CpuOption(const OptionRecord& option, double rate, double volatility)
      : spot_(option.spot),
        strike_(option.strike * std::exp(-rate * option.years)),
        deviation_(volatility * std::sqrt(option.years)) {
    const double distance = std::log(option.spot / double{option.strike});
    const double drift = (rate + 0.5 * volatility * volatility) * option.years;
    d1_ = (distance + drift) / deviation_;
    // What the kernel computes in float, in units of 2^-24: the two terms of d1 are off by no more than 6 of
    // themselves each, their exponentials by 2 and the discount's argument; the density is at most 0.4.
    const double terms = (std::fabs(distance) + std::fabs(drift) +
                          (std::fabs(rate) + volatility * volatility) * option.years) /
                             deviation_ +
                         deviation_;
    const double normal_error = 7.5e-8 + std::ldexp(0.4 * 8 * terms + 8, -24);
    tolerance_ = (spot_ + strike_) * normal_error +
                 strike_ * std::ldexp(2 + 2 * std::fabs(rate * option.years), -24) +
                 2 * std::numeric_limits<float>::min();
  }

  Price call() const { return difference(spot_ * normal_cdf_by_cpu(d1_), strike_ * normal_cdf_by_cpu(d2())); }
  Price put() const {
    return difference(strike_ * normal_cdf_by_cpu(-d2()), spot_ * normal_cdf_by_cpu(-d1_));
  }

 private:
  Price difference(double a, double b) const { return {a - b, tolerance_, a + b}; }
  double d2() const { return d1_ - deviation_; }

  double spot_;
  /// Discounted.
  double strike_;
  double deviation_;
  double d1_ = 0;
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
