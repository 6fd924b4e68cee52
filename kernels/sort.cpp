#include "kernels/sort.hpp"

#include <algorithm>
#include <array>

#include "kernels/fingerprint.hpp"
#include "kernels/plain_file.hpp"
#include "kernels/rotate.hpp"
#include "kernels/sort_tasks.hpp"

namespace aprime::kernels {
namespace {

constexpr Argument kArguments[] = {{"FILE", "file of uint32 values to sort in place", Access::read_write}};

/// Sorted, and the same values as before: the sum of scrambled values does not depend on their order, and
/// differs for other values but for about one case in 2^64.
class SortCheck final : public Check {
 public:
  explicit SortCheck(const RunFile& file) : file_(file) {
    for_each_element<std::uint32_t>(file,
                                    [this](std::uint64_t, std::uint32_t value) { sum_ += scramble(value); });
  }

  std::string disagreement(const Result&) override {
    std::uint64_t sum = 0;
    std::uint64_t unsorted_at = 0;
    std::uint32_t previous = 0;
    for_each_element<std::uint32_t>(file_, [&](std::uint64_t index, std::uint32_t value) {
      if (value < previous && unsorted_at == 0) unsorted_at = index;
      previous = value;
      sum += scramble(value);
    });
    if (unsorted_at != 0)
      return "value " + std::to_string(unsorted_at) + " is smaller than the one before it";
    if (sum != sum_) return "the values are not those that the file had";
    return {};
  }

 private:
  RunFile file_;
  std::uint64_t sum_ = 0;
};

/// Sorting with leases that are smaller than the file, in place: leased runs are sorted and then merged in
/// pairs. A pair that does not fit a lease is split in two such pairs, at the place that the middle element
/// of the result comes from, by one rotation (Dudziński and Dydek, "On a stable storage merging algorithm",
/// Information Processing Letters 12 (1981)). For a file of k leases this moves O(k log^2 k) leases; the file
/// is at every moment a permutation of what it was.
class ExternalSort {
 public:
  ExternalSort(Session& session, const Mapping& mapping) : session_(session), mapping_(mapping) {}

  void run() {
    const ByteCount chunk = session_.lease_bytes(1);
    session_.stream("sorting runs", mapping_.size_bytes(), chunk, [&](ByteRange range) {
      session_.queue_task("sort", SortTask{}, read_write(mapping_, range));
    });
    lease_elements_ = chunk.value / 4;
    const std::uint64_t count = mapping_.size<std::uint32_t>();
    for (std::uint64_t width = lease_elements_; width < count; width *= 2) {
      session_.progress().begin("merging runs of " + std::to_string(width) + " values",
                                mapping_.size_bytes());
      for (std::uint64_t first = 0; first < count; first += 2 * width) {
        merge(first, std::min(first + width, count), std::min(first + 2 * width, count));
      }
    }
  }

 private:
  /// \pre [first, middle) and [middle, last) are sorted
  void merge(std::uint64_t first, std::uint64_t middle, std::uint64_t last) {
    const ElementRange both{first, last};
    if (first == middle || middle == last || element(middle - 1) <= element(middle)) {
      session_.progress().advance(both.bytes().size);
      return;
    }
    if (both.size() <= lease_elements_) {
      session_.run_task("merge", MergeTask{middle - first}, read_write(mapping_, both.bytes()));
      session_.progress().advance(both.bytes().size);
      return;
    }
    const std::uint64_t half = both.size() / 2;
    const std::uint64_t from_left = split(first, middle, last, half);
    const std::uint64_t from_right = half - from_left;
    rotate(session_, mapping_, first + from_left, middle, middle + from_right);
    merge(first, first + from_left, first + half);
    merge(first + half, middle + from_right, last);
  }

  /// How many of the `rank` smallest elements of two sorted neighbours are in the left one, by binary search.
  /// Every one that is left out of the left is at least as large as each that is taken, and likewise of the
  /// right.
  std::uint64_t split(std::uint64_t first, std::uint64_t middle, std::uint64_t last,
                      std::uint64_t rank) const {
    std::uint64_t low = rank > last - middle ? rank - (last - middle) : 0;
    std::uint64_t high = std::min(rank, middle - first);
    while (low < high) {
      const std::uint64_t left = low + (high - low) / 2;
      // With so few from the left, the last one taken from the right must not exceed the first left out here.
      if (element(first + left) < element(middle + (rank - left) - 1)) {
        low = left + 1;
      } else {
        high = left;
      }
    }
    return low;
  }

  std::uint32_t element(std::uint64_t index) const {
    std::array<std::uint32_t, 1> value{};
    mapping_.read(ByteOffset{index * 4}, std::as_writable_bytes(std::span(value)));
    return value[0];
  }

  Session& session_;
  const Mapping& mapping_;
  std::uint64_t lease_elements_ = 0;
};

Result run(Session& session, const Arguments&, std::span<const Mapping> files) {
  ExternalSort(session, files[0]).run();
  return {{"elements", std::uint64_t{files[0].size<std::uint32_t>()}}};
}

}  // namespace

constinit const Workload sort{
    .name = "sort",
    .help = "sort uint32 values, in place",
    .arguments = kArguments,
    .element_bytes = sizeof(std::uint32_t),
    .stoppable = true,
    .needs_disk_space = true,
    .validate = nullptr,
    .make_check = [](const Arguments&, std::span<const RunFile> files) -> std::unique_ptr<Check> {
      return std::make_unique<SortCheck>(files[0]);
    },
    .run = run,
};

}  // namespace aprime::kernels
