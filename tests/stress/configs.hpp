#pragma once

#include <vector>

#include "tests/stress/world.hpp"

namespace aprime::stress {

/// What stress_test.cpp runs. Each program that runs it brings its own; the first one is sabotaged, too.
std::vector<Config> configs();

}  // namespace aprime::stress
