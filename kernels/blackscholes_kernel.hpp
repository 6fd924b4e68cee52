#pragma once

#include <cmath>
#include <cstddef>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"

namespace aprime::kernels {

/// A European option on an asset that pays no dividend, as it lies in the file: five float32 values, 20
/// bytes.
struct OptionRecord {
  /// Price of the asset now.
  float spot;
  float strike;
  /// Until expiry.
  float years;
  /// What the call and the put are worth now: results.
  float call;
  float put;
};
static_assert(sizeof(OptionRecord) == 20);

/// Cumulative standard normal distribution, with an error of at most 7.5e-8: formula 26.2.17 of Abramowitz
/// and Stegun, "Handbook of Mathematical Functions", 1964 (from Hastings, "Approximations for Digital
/// Computers", 1955).
APRIME_DEVICE inline float normal_cdf(float x) {
  const float t = 1.0F / fmaf(0.2316419F, fabsf(x), 1.0F);
  float polynomial = 1.330274429F;
  polynomial = fmaf(polynomial, t, -1.821255978F);
  polynomial = fmaf(polynomial, t, 1.781477937F);
  polynomial = fmaf(polynomial, t, -0.356563782F);
  polynomial = fmaf(polynomial, t, 0.319381530F);
  const float upper = 0.39894228F * expf(-0.5F * x * x) * polynomial * t;
  return x > 0.0F ? 1.0F - upper : upper;
}

/// Prices options by the closed formula of Black and Scholes, "The pricing of options and corporate
/// liabilities", Journal of Political Economy 81 (1973). One thread for each record.
struct BlackScholesKernel {
  static constexpr unsigned kThreads = 256;

  /// Of a riskless investment, continuously compounded, per year: 0.05 is 5 %.
  float rate;
  /// Standard deviation of the asset's logarithmic return, per square root of a year. Above 0.
  float volatility;

  APRIME_DEVICE void operator()(LeasedSpan<OptionRecord> options) const {
    const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i >= options.size()) return;
    OptionRecord& option = options[i];
    const float spot = option.spot;
    const float strike = option.strike;
    const float years = option.years;
    if (!(is_positive(spot) && is_positive(strike) && is_positive(years))) {
      option.call = NAN;
      option.put = NAN;
      return;
    }
    // Where it overflows, no price depends on its size any more: one probability is 1, the other 0.
    const float deviation = volatility * sqrtf(years);
    const float middle = middle_of(spot, strike, years, deviation);
    const float d1 = fmaf(0.5F, deviation, middle);
    const float d2 = fmaf(-0.5F, deviation, middle);
    const float discount = -rate * years;
    option.call = part(spot, d1) - discounted_part(strike, discount, d2);
    option.put = discounted_part(strike, discount, -d2) - part(spot, -d1);
  }

 private:
  /// And finite.
  APRIME_DEVICE static bool is_positive(float x) { return x > 0.0F && x <= 3.402823466e38F; }

  /// Of a positive number: neither overflown nor underflown.
  APRIME_DEVICE static bool is_normal(float x) { return x >= 1.17549435e-38F && x <= 3.402823466e38F; }

  /// Half a deviation from both d1 and d2: log(forward price / strike) in deviations. The usual formula for
  /// d1 has the square of the volatility, which may be no float where the prices are.
  APRIME_DEVICE float middle_of(float spot, float strike, float years, float deviation) const {
    const float growth = fmaf(rate, years, log_ratio(spot, strike));
    // Beside what has no room in a float the logarithm counts for nothing.
    if (!(fabsf(growth) <= 3.402823466e38F)) return rate / volatility * sqrtf(years);
    // A deviation of 0 leaves the intrinsic value. Where that is 0, too, so is the price, whatever this is.
    return growth == 0.0F ? 0.0F : growth / deviation;
  }

  /// What counts of `value`.
  APRIME_DEVICE static float part(float value, float x) { return value * normal_cdf(x); }

  /// What counts of value * exp(discount); nothing where the probability is 0.
  APRIME_DEVICE static float discounted_part(float value, float discount, float x) {
    const float probability = normal_cdf(x);
    if (probability == 0.0F) return 0.0F;
    const float factor = expf(discount);
    const float discounted = value * factor;
    if (is_normal(factor) && is_normal(discounted)) return discounted * probability;
    // One of them is no float where the result may be one. In this order nothing on the way to that
    // overflows, and what underflows is too little to count.
    const float root = expf(0.25F * discount);
    if (value < 1.0F) return value * root * root * probability * root * root;
    return value * probability * root * root * root * root;
  }

  /// log(a / b), accurate for neighbours too, whose difference is exact where their quotient is not.
  APRIME_DEVICE static float log_ratio(float a, float b) {
    const bool are_near = a < 2.0F * b && b < 2.0F * a;
    if (are_near) return log1pf((a - b) / b);
    const float quotient = a / b;
    return is_normal(quotient) ? logf(quotient) : logf(a) - logf(b);
  }
};

}  // namespace aprime::kernels
