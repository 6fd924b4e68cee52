#pragma once

#include <cstdint>

#include "aprime/error.hpp"
#include "aprime/units.hpp"

namespace aprime::device {

/// How far an operation on several granules came. The first `done` granules are as asked for; the others are
/// as they were before. `status` says why it stopped early, and is ok if it did not.
struct Progress {
  GranuleCount done;
  Status status;
};

/// Does `operation(GranuleRange) -> Status` for a run in one go; if that fails, granule by granule as far as
/// it gets. So it is known exactly which granules were done, whatever `operation` did to a part of the run
/// before it failed. \pre what failed for a run may be done again; what failed for a single granule has
/// changed nothing
template <class Operation>
Progress in_one_go_or_each(GranuleRange run, const Operation& operation) noexcept {
  if (run.empty()) return {GranuleCount{0}, {}};
  Status status = operation(run);
  if (status.is_ok()) return {run.count, {}};
  if (run.count.value == 1) return {GranuleCount{0}, status};
  for (std::uint64_t i = 0; i < run.count.value; ++i) {
    status = operation(GranuleRange{run.first + GranuleCount{i}, GranuleCount{1}});
    if (!status.is_ok()) return {GranuleCount{i}, status};
  }
  return {run.count, {}};
}

}  // namespace aprime::device
