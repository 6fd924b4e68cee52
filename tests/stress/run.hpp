#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

#include "tests/stress/world.hpp"

namespace aprime::stress {

/// How long a run shall be: APRIME_STRESS_OPERATIONS and APRIME_STRESS_CALLS, or `full`, less where tests are
/// to be quick.
RunLength length_of_run(const RunLength& full);

/// Makes a world of APRIME_STRESS_SEED, or a new seed, and runs it. Says what it did. Returns the failure,
/// with how to replay it, or nothing.
std::string run(const Config& config, const RunLength& length);

void PrintTo(const Config& config, std::ostream* out);

}  // namespace aprime::stress
