#pragma once

#include <stdexcept>

namespace aprime::cli {

/// Exit status of the command. An interrupt exits with 128 plus the number of the signal, as shells do.
enum ExitCode : int {
  done = 0,
  failed = 1,
  usage = 2,
  mismatch = 3,
};

/// Two ways to see the same bytes disagree. Ends with `mismatch`.
class Disagreement : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace aprime::cli
