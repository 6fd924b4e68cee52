#include "kernels/scan.hpp"

#include <algorithm>

#include "kernels/fingerprint.hpp"
#include "kernels/plain_file.hpp"
#include "kernels/scan_kernel.hpp"
#include "kernels/scratch.hpp"

namespace aprime::kernels {
namespace {

constexpr Argument kArguments[] = {
    {"FILE", "file of uint32 values; each becomes the sum, modulo 2^32, of itself and all before it",
     Access::read_write},
};

class ScanCheck final : public Check {
 public:
  explicit ScanCheck(const RunFile& file) : file_(file), expected_(file.size.value / sizeof(std::uint32_t)) {
    for_each_element<std::uint32_t>(file_, [this](std::uint64_t index, std::uint32_t value) {
      sum_ += value;
      expected_.add(index, sum_);
    });
  }

  std::string disagreement(const Result& result) override {
    const std::string difference = expected_.disagreement(file_);
    if (!difference.empty()) return difference;
    const auto sum = std::get<std::uint64_t>(result.back().second);
    if (sum != sum_) return "the sum is " + std::to_string(sum) + "; the CPU gets " + std::to_string(sum_);
    return {};
  }

 private:
  RunFile file_;
  Fingerprint expected_;
  std::uint32_t sum_ = 0;
};

Result run(Session& session, const Arguments&, std::span<const Mapping> files) {
  const Scratch scratch(session.runtime(), ByteCount{sizeof(ScanSums)});
  const ByteCount chunk = session.lease_bytes(1, ByteCount{sizeof(ScanSums)});
  session.stream("adding up", files[0].size_bytes(), chunk, [&](ByteRange range) {
    const std::uint64_t elements = range.size.value / sizeof(std::uint32_t);
    const std::uint64_t tiles = (elements + ScanKernel::kTile - 1) / ScanKernel::kTile;
    const std::uint64_t part = (tiles + kScanBlocksMax - 1) / kScanBlocksMax * ScanKernel::kTile;
    const Grid grid{.blocks = {static_cast<unsigned>((elements + part - 1) / part), 1, 1},
                    .threads = {ScanKernel::kThreads, 1, 1}};
    session.queue("scan_parts", grid, ScanPartsKernel{part}, read(files[0], range),
                  read_write(scratch.mapping()));
    session.queue("scan_sums", Grid{.blocks = {}, .threads = {ScanSumsKernel::kThreads, 1, 1}},
                  ScanSumsKernel{grid.blocks.x}, read_write(scratch.mapping()));
    session.queue("scan", grid, ScanKernel{part}, read_write(files[0], range), read_write(scratch.mapping()));
  });
  ScanSums sums{};
  scratch.read(std::span(&sums, 1));
  return {{"elements", std::uint64_t{files[0].size<std::uint32_t>()}}, {"sum", std::uint64_t{sums.total}}};
}

}  // namespace

constinit const Workload scan{
    .name = "scan",
    .help = "inclusive prefix sum of uint32 values, in place; sums wrap around modulo 2^32",
    .arguments = kArguments,
    .element_bytes = sizeof(std::uint32_t),
    .stoppable = false,
    .needs_disk_space = true,
    .validate = nullptr,
    .make_check = [](const Arguments&, std::span<const RunFile> files) -> std::unique_ptr<Check> {
      return std::make_unique<ScanCheck>(files[0]);
    },
    .run = run,
};

}  // namespace aprime::kernels
