#include "kernels/atomics.hpp"

#include <algorithm>

#include "kernels/atomics_kernel.hpp"
#include "kernels/fingerprint.hpp"
#include "kernels/plain_file.hpp"

namespace aprime::kernels {
namespace {

constexpr Argument kArguments[] = {
    {"FILE", "file of uint32 counters, which wrap around", Access::read_write},
    {"--increments", "how often to add 1 to each of them", &Arguments::increments},
};

class AtomicsCheck final : public Check {
 public:
  AtomicsCheck(const Arguments& arguments, const RunFile& file)
      : file_(file), expected_(file.size.value / sizeof(std::uint32_t)) {
    const auto increments = static_cast<std::uint32_t>(arguments.increments);
    for_each_element<std::uint32_t>(
        file_, [&](std::uint64_t i, std::uint32_t counter) { expected_.add(i, counter + increments); });
  }

  std::string disagreement(const Result&) override { return expected_.disagreement(file_); }

 private:
  RunFile file_;
  Fingerprint expected_;
};

constexpr std::uint64_t kThreadsMax = std::uint64_t{1} << 20;
/// In all, between two looks at whether to stop; and of one counter.
constexpr std::uint64_t kIncrementsPerLaunch = std::uint64_t{1} << 24;

void validate(const Arguments& arguments, std::span<const Mapping>) {
  if (arguments.increments > kIncrementsPerLaunch) {
    throw UsageError("--increments must be at most " + std::to_string(kIncrementsPerLaunch));
  }
}

Result run(Session& session, const Arguments& arguments, std::span<const Mapping> files) {
  constexpr std::uint64_t kIncrementsMax = kIncrementsPerLaunch / AtomicsKernel::kTile;
  const std::uint64_t tiles = std::max<std::uint64_t>(kIncrementsMax / arguments.increments, 1);
  const ByteCount chunk{tiles * AtomicsKernel::kTile * sizeof(std::uint32_t)};
  session.stream("counting", files[0].size_bytes(), chunk, [&](ByteRange range) {
    for (std::uint64_t left = arguments.increments; left != 0;) {
      const std::uint64_t increments = std::min(left, kIncrementsMax);
      const std::uint64_t total = range.size.value / sizeof(std::uint32_t) * increments;
      session.run("atomics", Grid::cover(std::min(total, kThreadsMax), AtomicsKernel::kThreads),
                  AtomicsKernel{increments}, demand_read_write(files[0], range));
      left -= increments;
      session.progress().advance(ByteCount{0});
    }
  });
  const std::uint64_t counters = files[0].size<std::uint32_t>();
  return {{"counters", counters}, {"increments", counters * arguments.increments}};
}

}  // namespace

constinit const Workload atomics{
    .name = "atomics",
    .help = "increment counters from many device threads at once, by atomic operations on the shared file",
    .arguments = kArguments,
    .element_bytes = sizeof(std::uint32_t),
    .stoppable = false,
    .needs_disk_space = true,
    .validate = validate,
    .make_check = [](const Arguments& arguments, std::span<const RunFile> files) -> std::unique_ptr<Check> {
      return std::make_unique<AtomicsCheck>(arguments, files[0]);
    },
    .run = run,
};

}  // namespace aprime::kernels
