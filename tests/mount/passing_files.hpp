#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace aprime::test {

// Files that come and go under a few names while programs and devices use them. All words of one file have
// the same mark, in their upper half; the lower half of each counts the additions that were made to it.

inline constexpr unsigned kPassingNames = 5;
/// Enough for the kernel to read ahead.
inline constexpr std::size_t kPassingWords = 16384;
inline constexpr unsigned kMarkShift = 32;

inline std::string passing_name(std::uint64_t n) { return "passing" + std::to_string(n % kPassingNames); }

/// A name for a file that one program makes before it moves it to one of those of all.
inline std::string passing_name_of(int process) { return "passing-of-" + std::to_string(process); }

/// Empty if every word has the mark of the first and counts no less than in `before` (if there is any).
inline std::string fault_of(std::span<const std::uint64_t> words, std::span<const std::uint64_t> before) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] >> kMarkShift != words[0] >> kMarkShift || words[i] == 0)
      return "word " + std::to_string(i) + " is of another file: " + std::to_string(words[i]) +
             ", where the first is " + std::to_string(words[0]);
    if (!before.empty() && words[i] < before[i])
      return "word " + std::to_string(i) + " was " + std::to_string(before[i]) + " and is " +
             std::to_string(words[i]);
  }
  return {};
}

}  // namespace aprime::test
