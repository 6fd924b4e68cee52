#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>

// A profiler as small as one can be: a library that NVTX loads because NVTX_INJECTION64_PATH names it, and
// that keeps what it is told in memory. A test that is linked with it reads that.
//
// Its fault model: two domains of one name are one, and what is told of a domain after its end is an error.
// It allocates nothing and takes no lock, so that what it records inside signal handlers is itself no
// problem.

namespace aprime::test {

struct TraceEvent {
  enum class What : std::uint8_t { push, pop, sample };
  What what;
  pid_t thread;
  /// Of a range, or of the counter.
  std::array<char, 64> name;
  /// Of a range.
  std::array<char, 64> category;
  bool has_payload;
  /// Of a range, or the sampled value.
  std::uint64_t value;
};

class TraceRecorder {
 public:
  /// For the dynamic loader: where this library is.
  static std::string path();

  /// How often NVTX looked for its tool here: once for ranges, once for counters.
  static int initializations();
  static bool can_count();
  /// In the order in which they came. Only while nothing is traced.
  static std::span<const TraceEvent> events();
  /// What no program should do: the first such thing in words, or empty.
  static std::string misuse();
  /// Domains of this name that were created and not destroyed.
  static int open_domains(const std::string& name);
  /// Forgets the events and the misuse. Only while nothing is traced.
  static void clear();
};

}  // namespace aprime::test
