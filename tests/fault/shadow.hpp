#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace aprime::fault {

/// What a file may hold, byte by byte, when stores may fail: a byte that a failed store reached has its old
/// or its new value, and looking at it settles which. Values are 0 to 63.
class Shadow {
 public:
  static constexpr unsigned kValues = 64;

  explicit Shadow(std::size_t size = 0) : allowed_(size, bit(0)) {}

  std::size_t size() const noexcept { return allowed_.size(); }
  void resize(std::size_t size) { allowed_.resize(size, bit(0)); }

  void store(std::size_t at, std::size_t size, unsigned value) {
    for (std::size_t i = at; i < at + size; ++i) allowed_[i] = bit(value);
  }
  void store_or_not(std::size_t at, std::size_t size, unsigned value) {
    for (std::size_t i = at; i < at + size; ++i) allowed_[i] |= bit(value);
  }
  void copy(std::size_t at, std::size_t size, const Shadow& from, std::size_t from_at) {
    for (std::size_t i = 0; i < size; ++i) allowed_[at + i] = from.allowed_[from_at + i];
  }
  void copy_or_not(std::size_t at, std::size_t size, const Shadow& from, std::size_t from_at) {
    for (std::size_t i = 0; i < size; ++i) allowed_[at + i] |= from.allowed_[from_at + i];
  }

  /// Compares what was seen at `at`, and takes it for the truth from now on. Says what is wrong, if anything
  /// is.
  std::optional<std::string> see(std::size_t at, std::span<const std::byte> seen) {
    for (std::size_t i = 0; i < seen.size(); ++i) {
      const auto value = std::to_integer<unsigned>(seen[i]);
      if (value >= kValues || (allowed_[at + i] & bit(value)) == 0)
        return "byte " + std::to_string(at + i) + " is " + std::to_string(value) + ", may be" +
               list(allowed_[at + i]);
      allowed_[at + i] = bit(value);
    }
    return std::nullopt;
  }

 private:
  static constexpr std::uint64_t bit(unsigned value) noexcept { return std::uint64_t{1} << value; }
  static std::string list(std::uint64_t values) {
    std::string text;
    for (unsigned v = 0; v < kValues; ++v)
      if ((values & bit(v)) != 0) text += " " + std::to_string(v);
    return text;
  }

  std::vector<std::uint64_t> allowed_;
};

}  // namespace aprime::fault
