#include "host/cli/size_option.hpp"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <limits>

namespace aprime::cli {
namespace {

constexpr std::string_view kUnits = "KMGT";

}  // namespace

std::errc parse_size(std::string_view text, ByteCount& size) {
  std::uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::invalid_argument) return error;
  std::string unit(rest, end);
  for (char& c : unit) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  unsigned shift = 0;
  if (!unit.empty() && unit != "B") {
    const std::size_t power = kUnits.find(unit[0]);
    if (power == std::string_view::npos || (unit.size() > 1 && unit.substr(1) != "IB"))
      return std::errc::invalid_argument;
    shift = static_cast<unsigned>(10 * (power + 1));
  }
  if (error != std::errc{} || number > std::numeric_limits<std::uint64_t>::max() >> shift)
    return std::errc::result_out_of_range;
  size = ByteCount{number << shift};
  return {};
}

std::string format_size(ByteCount size) {
  auto value = static_cast<double>(size.value);
  std::size_t power = 0;
  while (value >= 1024 && power < kUnits.size()) {
    value /= 1024;
    ++power;
  }
  if (power == 0) return fmt::format("{} B", size.value);
  const bool whole = value == static_cast<double>(static_cast<std::uint64_t>(value));
  return fmt::format("{:.{}f} {}iB", value, whole ? 0 : 1, kUnits[power - 1]);
}

std::string format_size_option(ByteCount size) {
  std::uint64_t value = size.value;
  std::size_t power = 0;
  while (value != 0 && value % 1024 == 0 && power < kUnits.size()) {
    value /= 1024;
    ++power;
  }
  return power == 0 ? std::to_string(value) : std::to_string(value) + kUnits[power - 1];
}

}  // namespace aprime::cli
