#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace aprime::kernels {

/// A sum of products of two floats, in double precision, which knows how far from it a sum of the same
/// products in float may be.
///
/// n products, added in whatever order with one rounding for each, err by at most n u times the sum of their
/// magnitudes, u = 2^-24 (Jeannerod and Rump, "Improved error bounds for inner products in floating-point
/// arithmetic", SIAM J. Matrix Anal. Appl. 34 (2013)); the sum here by n 2^-53 of it; and each operation that
/// underflows by half of 2^-149.
class ReferenceSum {
 public:
  void add(double product) noexcept {
    value_ += product;
    if (std::isfinite(product)) magnitude_ += std::fabs(product);
  }

  double value() const noexcept { return value_; }

  /// How far a sum in float of `terms` products may be off.
  double tolerance(std::uint64_t terms) const noexcept {
    const auto n = static_cast<double>(terms);
    return n * (std::ldexp(1.0, -24) + std::ldexp(1.0, -53)) * magnitude_ + n * std::ldexp(1.0, -149);
  }

  /// Whether `actual` may be a sum in float of the same `terms` products.
  bool accepts(double actual, std::uint64_t terms) const noexcept {
    // A partial sum may have had no room in a float: it is infinite, and with the other infinity no number.
    const bool overflows = magnitude_ >= std::numeric_limits<float>::max();
    if (std::isnan(value_)) return std::isnan(actual);
    if (std::isinf(value_)) return actual == value_ || (overflows && std::isnan(actual));
    if (!std::isfinite(actual)) return overflows;
    return std::fabs(actual - value_) <= tolerance(terms);
  }

 private:
  double value_ = 0;
  /// Of the finite products.
  double magnitude_ = 0;
};

}  // namespace aprime::kernels
