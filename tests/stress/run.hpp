#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

#include "tests/stress/world.hpp"

namespace aprime::stress {

/// How long a run shall be: APRIME_STRESS_OPERATIONS, or `full`, less where tests are to be quick.
std::uint64_t operations_of_run(std::uint64_t full);

/// Makes a world of APRIME_STRESS_SEED, or a new seed, and runs it. Says what it did. Returns the failure,
/// with how to replay it, or nothing.
std::string run(const Config& config, std::uint64_t operations);

void PrintTo(const Config& config, std::ostream* out);

}  // namespace aprime::stress
