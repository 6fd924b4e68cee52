#pragma once

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace aprime::test {

/// How often a test repeats something that it needs to do often: `full` times as a rule; a sixteenth of it,
/// but at least once, where the environment says APRIME_TEST_SCALE=small, as the sanitizer presets do.
template <class Integer>
Integer scaled(Integer full) {
  const char* scale = std::getenv("APRIME_TEST_SCALE");
  return scale != nullptr && std::string_view(scale) == "small" ? std::max<Integer>(full / 16, 1) : full;
}

}  // namespace aprime::test
