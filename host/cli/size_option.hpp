#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "aprime/units.hpp"

namespace aprime::cli {

/// Parses a number of bytes: digits and, if wanted, K, M, G or T (powers of 1024; also written KiB, and in
/// lower case). Nothing if `text` is no such thing or the number has no room in 64 bits.
std::optional<ByteCount> parse_size(std::string_view text);

/// For people: "512 B", "64 KiB", "1.5 GiB".
std::string format_size(ByteCount size);

/// As `parse_size` reads it, without loss: 65536 is "64K", 65537 is "65537".
std::string format_size_option(ByteCount size);

}  // namespace aprime::cli
