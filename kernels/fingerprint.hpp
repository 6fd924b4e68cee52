#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/plain_file.hpp"

namespace aprime::kernels {

/// Scrambles 64 bits so that each input bit changes about half of the output bits. This is the finalizer of
/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
constexpr std::uint64_t scramble(std::uint64_t x) noexcept {
  x += 0x9e37'79b9'7f4a'7c15;
  x = (x ^ (x >> 30)) * 0xbf58'476d'1ce4'e5b9;
  x = (x ^ (x >> 27)) * 0x94d0'49bb'1331'11eb;
  return x ^ (x >> 31);
}

/// What a sequence of 32-bit elements should hold, in bounded memory: one sum for each run of positions.
/// Elements may be added in any order. A wrong sequence passes with a probability of about 2^-64.
class Fingerprint {
 public:
  /// For `elements` positions.
  explicit Fingerprint(std::uint64_t elements);

  /// \pre there is such a position
  void add(std::uint64_t position, std::uint32_t element) noexcept {
    sums_[position / run_] += scramble(scramble(position) + element);
  }

  /// Compares with the actual sequence, whose elements are `element_bytes` in the file (for the message);
  /// empty if they are equal. \pre `actual` has as many positions
  std::string disagreement(const Fingerprint& actual, std::uint64_t element_bytes) const;
  /// Compares with a file of 32-bit elements. \throws InputError if it cannot be read
  std::string disagreement(const RunFile& file) const;

 private:
  std::uint64_t elements_;
  /// Positions per sum.
  std::uint64_t run_;
  std::vector<std::uint64_t> sums_;
};

}  // namespace aprime::kernels
