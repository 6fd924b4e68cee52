#include "kernels/histogram.hpp"

#include "kernels/histogram_kernel.hpp"
#include "kernels/plain_file.hpp"
#include "kernels/scratch.hpp"

namespace aprime::kernels {
namespace {

constexpr Argument kArguments[] = {{"FILE", "file whose bytes are counted", Access::read}};

class HistogramCheck final : public Check {
 public:
  explicit HistogramCheck(const RunFile& file) : bins_(256) {
    for_each_element<unsigned char>(file, [this](std::uint64_t, unsigned char byte) { ++bins_[byte]; });
  }

  std::string disagreement(const Result& result) override {
    const auto& bins = std::get<std::vector<std::uint64_t>>(result.front().second);
    for (std::size_t i = 0; i < bins_.size(); ++i) {
      if (bins.at(i) != bins_[i]) {
        return "bin " + std::to_string(i) + " is " + std::to_string(bins[i]) + "; the CPU counts " +
               std::to_string(bins_[i]);
      }
    }
    return {};
  }

 private:
  std::vector<std::uint64_t> bins_;
};

Result run(Session& session, const Arguments&, std::span<const Mapping> files) {
  std::vector<std::uint64_t> bins(256);
  const ByteCount bins_bytes{bins.size() * sizeof bins[0]};
  const Scratch scratch(session.runtime(), bins_bytes);
  const ByteCount chunk = session.lease_bytes(1, bins_bytes);
  session.stream("counting", files[0].size_bytes(), chunk, [&](ByteRange range) {
    const std::uint64_t tiles =
        (range.size.value + HistogramKernel::kTileBytes - 1) / HistogramKernel::kTileBytes;
    const Grid grid{.blocks = {static_cast<unsigned>(tiles), 1, 1},
                    .threads = {HistogramKernel::kThreads, 1, 1}};
    session.queue("histogram", grid, HistogramKernel{}, read(files[0], range), read_write(scratch.mapping()));
  });
  scratch.read(std::span(bins));
  return {{"bins", std::move(bins)}};
}

}  // namespace

constinit const Workload histogram{
    .name = "histogram",
    .help = "count how often each byte value occurs",
    .arguments = kArguments,
    .element_bytes = 1,
    .stoppable = true,
    .needs_disk_space = false,
    .validate = nullptr,
    .make_check = [](const Arguments&, std::span<const RunFile> files) -> std::unique_ptr<Check> {
      return std::make_unique<HistogramCheck>(files[0]);
    },
    .run = run,
};

}  // namespace aprime::kernels
