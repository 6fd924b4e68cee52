#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory_resource>
#include <string>
#include <vector>

namespace aprime::stress {

/// Which way an operation goes to the bytes.
enum class Path : std::uint8_t {
  host_load,
  host_store,
  host_add,
  device_load,
  device_store,
  device_add,
  device_overwrite,
  read_migrate,
  read_bounce,
  read_adaptive,
  write_migrate,
  write_bounce,
  write_adaptive,
  read_direct,
  write_direct,
  lease_out,
  lease_in,
  discard,
  plain_read,
  sync,
  prefetch,
  prefetch_home,
  map,
  launch,
  tail,
  resize,
  append,
  rename,
  at_end,
};
inline constexpr std::size_t kPathCount = 29;
const char* name(Path path) noexcept;

/// What each actor did lately, for the message of a failure. One ring for each actor; a ring may have several
/// writers (the kernel threads of a device). Wait-free. Read after all actors have stopped.
class Journal {
 public:
  using Clock = std::chrono::steady_clock;

  /// `memory` may be shared with other processes: each makes a journal of its own there, before any of them
  /// notes anything, with the same number of actors.
  explicit Journal(unsigned actors, std::pmr::memory_resource* memory = std::pmr::get_default_resource());

  /// An operation on `words` words from `word` on that began at `began` and has ended now. `value` is what
  /// was read or stored, where it is one.
  void note(unsigned actor, Path path, std::uint64_t word, std::uint64_t words, std::uint64_t value,
            Clock::time_point began) noexcept;

  /// The last `lines` operations that touched `word`, or moved a granule of [granule, granule + words),
  /// oldest first.
  std::string tail(std::uint64_t word, std::uint64_t granule, std::uint64_t words, std::size_t lines) const;
  /// Operations of each path, how many of them the actors from `first_program` on did, and the longest time
  /// that one took.
  std::string summary(unsigned first_program) const;
  std::uint64_t count(Path path) const noexcept;

 private:
  static constexpr std::size_t kEntries = std::size_t{1} << 16;
  struct Entry {
    std::atomic<std::uint64_t> ended_ns{0};
    /// Path in the upper 8 bits, then 28 bits each of word and words.
    std::atomic<std::uint64_t> what{0};
    std::atomic<std::uint64_t> value{0};
    std::atomic<std::uint64_t> took_ns{0};
  };
  struct alignas(64) Ring {
    std::atomic<std::uint64_t> next{0};
    std::array<std::atomic<std::uint64_t>, kPathCount> counts{};
    std::array<std::atomic<std::uint64_t>, kPathCount> longest_ns{};
  };

  std::pmr::vector<Ring> rings_;
  /// kEntries for each ring.
  std::pmr::vector<Entry> entries_;
};

}  // namespace aprime::stress
