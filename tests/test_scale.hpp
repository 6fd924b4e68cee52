#pragma once

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace aprime::test {

/// Whether tests are to do less: where the environment says APRIME_TEST_SCALE=small, as the sanitizer presets
/// do.
inline bool is_small() {
  const char* scale = std::getenv("APRIME_TEST_SCALE");
  return scale != nullptr && std::string_view(scale) == "small";
}

/// How often a test repeats something that it needs to do often: `full` times as a rule; a sixteenth of it,
/// but at least once, where tests are small.
template <class Integer>
Integer scaled(Integer full) {
  return is_small() ? std::max<Integer>(full / 16, 1) : full;
}

}  // namespace aprime::test
