#pragma once

#include <cstdint>

namespace aprime::stress {

/// SplitMix64 (Steele, Lea, Flood 2014): small, the same on every machine, and one seed gives many streams.
class Random {
 public:
  explicit Random(std::uint64_t seed, std::uint64_t stream = 0) noexcept
      : state_(mix(seed) ^ mix(stream + 0x9E3779B97F4A7C15u)) {}

  std::uint64_t next() noexcept { return mix(state_ += 0x9E3779B97F4A7C15u); }
  /// Uniform in [0, n), as far as 64 bits allow. \pre n > 0
  std::uint64_t below(std::uint64_t n) noexcept { return next() % n; }
  std::uint32_t below32(std::uint64_t n) noexcept { return static_cast<std::uint32_t>(below(n)); }
  std::uint64_t between(std::uint64_t least, std::uint64_t most) noexcept {
    return least + below(most - least + 1);
  }
  bool one_in(std::uint64_t n) noexcept { return below(n) == 0; }

  static constexpr std::uint64_t mix(std::uint64_t x) noexcept {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  }

 private:
  std::uint64_t state_;
};

}  // namespace aprime::stress
