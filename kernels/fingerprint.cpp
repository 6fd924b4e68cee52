#include "kernels/fingerprint.hpp"

#include <algorithm>

namespace aprime::kernels {

Fingerprint::Fingerprint(std::uint64_t elements)
    : elements_(elements),
      // At least 16 Ki positions for a useful message, and at most 1 Mi sums.
      run_(std::max<std::uint64_t>(std::uint64_t{1} << 14, (elements >> 20) + 1)),
      sums_(elements / run_ + 1) {}

std::string Fingerprint::disagreement(const Fingerprint& actual, std::uint64_t element_bytes) const {
  const auto [expected, found] = std::mismatch(sums_.begin(), sums_.end(), actual.sums_.begin());
  if (expected == sums_.end()) return {};
  const auto first = static_cast<std::uint64_t>(expected - sums_.begin()) * run_;
  const std::uint64_t last = std::min(first + run_, elements_);
  return "bytes are wrong between offset " + std::to_string(first * element_bytes) + " and " +
         std::to_string(last * element_bytes);
}

std::string Fingerprint::disagreement(const RunFile& file) const {
  Fingerprint actual(file.size.value / sizeof(std::uint32_t));
  for_each_element<std::uint32_t>(file,
                                  [&](std::uint64_t i, std::uint32_t element) { actual.add(i, element); });
  return disagreement(actual, sizeof(std::uint32_t));
}

}  // namespace aprime::kernels
