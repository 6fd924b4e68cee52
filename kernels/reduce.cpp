#include "kernels/reduce.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/plain_file.hpp"
#include "kernels/reduce_kernel.hpp"
#include "kernels/scratch.hpp"

namespace aprime::kernels {
namespace {

constexpr Argument kArguments[] = {{"FILE", "file of float32 values to add up", Access::read}};

constexpr std::uint64_t kBlocksMax = 1024;
constexpr std::uint64_t kPartMin = std::uint64_t{64} << 10;

/// Sums in order with compensation: A. Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation
/// endlicher Summen", ZAMM 54 (1974).
class ReduceCheck final : public Check {
 public:
  explicit ReduceCheck(const RunFile& file) {
    double compensation = 0;
    for_each_element<float>(file, [&](std::uint64_t, float value) {
      const double next = sum_ + value;
      compensation += std::fabs(sum_) >= std::fabs(value) ? (sum_ - next) + value : (value - next) + sum_;
      sum_ = next;
      magnitude_ += std::fabs(value);
    });
    if (std::isfinite(sum_)) sum_ += compensation;
  }

  /// Equal up to 2^-36 of the sum of magnitudes: n additions in double err by at most about n * 2^-53 of it,
  /// and no value takes part in more than 2^17 of them up to files of several TiB.
  std::string disagreement(const Result& result) override {
    const double sum = std::get<double>(result.front().second);
    if (std::isnan(sum) && std::isnan(sum_)) return {};
    const bool is_finite = std::isfinite(sum) && std::isfinite(sum_);
    if (is_finite ? std::fabs(sum - sum_) <= std::ldexp(magnitude_, -36) : sum == sum_) return {};
    return fmt::format("the sum is {}; the CPU gets {}", sum, sum_);
  }

 private:
  double sum_ = 0;
  double magnitude_ = 0;
};

Result run(Session& session, const Arguments&, std::span<const Mapping> files) {
  std::vector<double> sums(kBlocksMax);
  const ByteCount sums_bytes{sums.size() * sizeof(double)};
  const Scratch scratch(session.runtime(), sums_bytes);
  const ByteCount chunk = session.lease_bytes(1, sums_bytes);
  session.stream("adding up", files[0].size_bytes(), chunk, [&](ByteRange range) {
    const std::uint64_t elements = range.size.value / sizeof(float);
    const std::uint64_t part = std::max(kPartMin, (elements + kBlocksMax - 1) / kBlocksMax);
    const Grid grid{.blocks = {static_cast<unsigned>((elements + part - 1) / part), 1, 1},
                    .threads = {ReduceKernel::kThreads, 1, 1}};
    session.queue("reduce", grid, ReduceKernel{part}, read(files[0], range), read_write(scratch.mapping()));
  });
  scratch.read(std::span(sums));
  double total = 0;
  for (const double sum : sums) total += sum;
  return {{"sum", total}};
}

}  // namespace

constinit const Workload reduce{
    .name = "reduce",
    .help = "add up float32 values, in double precision",
    .arguments = kArguments,
    .element_bytes = sizeof(float),
    .stoppable = true,
    .needs_disk_space = false,
    .validate = nullptr,
    .make_check = [](const Arguments&, std::span<const RunFile> files) -> std::unique_ptr<Check> {
      return std::make_unique<ReduceCheck>(files[0]);
    },
    .run = run,
};

}  // namespace aprime::kernels
