#pragma once

#include <string>
#include <string_view>
#include <system_error>

#include "aprime/units.hpp"

namespace aprime::cli {

/// Parses a number of bytes: digits and, if wanted, K, M, G or T (powers of 1024; also written KiB, and in
/// lower case). invalid_argument if `text` is no such thing, result_out_of_range if 64 bits cannot hold it.
std::errc parse_size(std::string_view text, ByteCount& size);

/// For people: "512 B", "64 KiB", "1.5 GiB".
std::string format_size(ByteCount size);

/// As `parse_size` reads it, without loss: 65536 is "64K", 65537 is "65537".
std::string format_size_option(ByteCount size);

}  // namespace aprime::cli
