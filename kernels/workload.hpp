#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "aprime/access.hpp"
#include "aprime/mapping.hpp"
#include "kernels/plain_file.hpp"
#include "kernels/session.hpp"

// The interface between the `aprime` command and the workloads: a workload is one constant, and adding one is
// one more line in workloads.cpp.

namespace aprime::kernels {

/// What the user gave, as far as a workload asked for it.
struct Arguments {
  /// In the order of the workload's table.
  std::vector<std::string> files;
  std::string literal;
  float a = 1.0F;
  float rate = 0;
  float volatility = 0;
  float tolerance = 1e-5F;
  std::uint64_t iterations = 1000;
  std::uint64_t source = 0;
  std::uint64_t increments = 1;
  /// At least 1.
  std::uint64_t rows = 1;
};

/// One argument of a workload. Names that start with "--" are options, others are positional.
struct Argument {
  const char* name;
  const char* help;
  /// Where the value goes; for a file, what the workload does with it.
  std::variant<Access, std::string Arguments::*, float Arguments::*, std::uint64_t Arguments::*> value;
  /// If not, what `Arguments` says stands where it is not given.
  bool is_required = true;
  /// Of a count.
  std::uint64_t smallest = 1;
};

using Value = std::variant<std::uint64_t, double, std::vector<std::uint64_t>>;
/// Named values, in the order in which they are shown.
using Result = std::vector<std::pair<std::string, Value>>;

/// The same computation by plain sequential C++ over bytes that read(2) gives, without aprime. Made before
/// the run, when the files still hold their old bytes, and asked after it, when the new ones are on disk.
/// Memory is bounded, whatever the size of the file.
class Check {
 public:
  virtual ~Check() = default;
  /// What disagrees, in words; empty if nothing does. \throws InputError if a file cannot be read
  virtual std::string disagreement(const Result& result) = 0;
};

struct Workload {
  const char* name;
  const char* help;
  std::span<const Argument> arguments;
  /// Sizes of all files must be multiples of it.
  std::size_t element_bytes;
  /// Stopping half-way leaves bytes that still make sense (sort: a permutation). If not, one interrupt is not
  /// enough.
  bool stoppable;
  /// Stores to every block of its first file, so that disk space for holes must be there before the first
  /// store: running out of it half-way would lose elements that have already moved.
  bool needs_disk_space;

  /// Refuses what cannot work, before anything changes. May be null. \throws InputError
  void (*validate)(const Arguments& arguments, std::span<const Mapping> files);
  /// `files`: one for each of `arguments.files`. \throws InputError
  std::unique_ptr<Check> (*make_check)(const Arguments& arguments, std::span<const RunFile> files);
  /// `files`: one mapping for each of `arguments.files`. Does not sync. \throws Error, InputError,
  /// Interrupted
  Result (*run)(Session& session, const Arguments& arguments, std::span<const Mapping> files);
};

std::span<const Workload* const> all_workloads();
/// Null if there is none of that name.
const Workload* find_workload(const std::string& name);

}  // namespace aprime::kernels
