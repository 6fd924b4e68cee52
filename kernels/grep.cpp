#include "kernels/grep.hpp"

#include <algorithm>
#include <string_view>

#include "kernels/grep_kernel.hpp"
#include "kernels/plain_file.hpp"
#include "kernels/scratch.hpp"

namespace aprime::kernels {
namespace {

constexpr Argument kArguments[] = {
    {"LITERAL", "bytes to look for, as they are", &Arguments::literal},
    {"FILE", "file to search", Access::read},
};

std::uint64_t count_by_cpu(const RunFile& searched, const std::string& literal) {
  PlainFile file(searched);
  std::string window;  // the end of what was read before, which may begin a match, and what was read now
  std::vector<std::byte> block(std::size_t{1} << 20);
  std::uint64_t matches = 0;
  for (;;) {
    const std::size_t got = file.next(block);
    window.append(reinterpret_cast<const char*>(block.data()), got);
    for (auto at = window.find(literal); at != std::string::npos; at = window.find(literal, at + 1))
      ++matches;
    window.erase(0, window.size() - std::min(window.size(), literal.size() - 1));
    if (got < block.size()) return matches;
  }
}

class GrepCheck final : public Check {
 public:
  GrepCheck(const Arguments& arguments, const RunFile& file)
      : matches_(count_by_cpu(file, arguments.literal)) {}

  std::string disagreement(const Result& result) override {
    const auto matches = std::get<std::uint64_t>(result.front().second);
    if (matches == matches_) return {};
    return std::to_string(matches) + " matches; the CPU finds " + std::to_string(matches_);
  }

 private:
  std::uint64_t matches_;
};

void validate(const Arguments& arguments, std::span<const Mapping>) {
  if (arguments.literal.empty()) throw UsageError("LITERAL is empty: give at least one byte to look for");
}

/// Of one launch. An interrupt is heeded between two, so that they are limited in work, too: a start takes as
/// many comparisons as the literal has bytes where the file is full of what nearly matches.
ByteCount piece_bytes(const Session& session, std::size_t literal_bytes, ByteCount lease) {
  // What takes a second or so: of emulated devices on a slow machine, and less than a tenth of it on a GPU.
  constexpr std::uint64_t kCpuComparisonsMax = std::uint64_t{1} << 29;
  constexpr std::uint64_t kGpuComparisonsMax = std::uint64_t{1} << 36;
  const bool is_gpu = session.runtime().devices().front().name == "cuda";
  const std::uint64_t starts = (is_gpu ? kGpuComparisonsMax : kCpuComparisonsMax) / literal_bytes;
  const std::uint64_t granule = session.granule().value;
  return ByteCount{std::clamp(starts / granule * granule, granule, lease.value)};
}

Result run(Session& session, const Arguments& arguments, std::span<const Mapping> files) {
  const std::string& literal = arguments.literal;
  const ByteCount size = files[0].size_bytes();
  const ByteCount scratch_bytes{GrepKernel::shared_bytes(literal.size())};
  const Scratch scratch(session.runtime(), scratch_bytes);
  scratch.mapping().write(ByteOffset{sizeof(GrepHeader)}, std::as_bytes(std::span(literal)));

  // Neighbouring pieces share no granule, so that one can come while the other is searched: what a match
  // across the border needs is handed from launch to launch. It may be more than a piece.
  const ByteCount piece = piece_bytes(session, literal.size(), session.lease_bytes(1, scratch_bytes));
  std::size_t kept = 0;
  unsigned kept_in = 0;
  session.stream("searching", size, piece, [&](ByteRange range) {
    const std::uint64_t text_bytes = kept + range.size.value;
    const std::uint64_t tiles = (text_bytes + GrepKernel::kTileBytes - 1) / GrepKernel::kTileBytes;
    const Grid grid{.blocks = {static_cast<unsigned>(tiles), 1, 1}, .threads = {GrepKernel::kThreads, 1, 1}};
    session.queue("grep", grid, GrepKernel{literal.size(), kept, kept_in}, read(files[0], range),
                  read_write(scratch.mapping()));
    kept = std::min<std::size_t>(literal.size() - 1, text_bytes);
    kept_in = 1 - kept_in;
  });

  GrepHeader header{};
  scratch.read(std::span(&header, 1));
  return {{"matches", std::uint64_t{header.matches}}};
}

}  // namespace

constinit const Workload grep{
    .name = "grep",
    .help = "count the occurrences of a literal, overlapping ones too",
    .arguments = kArguments,
    .element_bytes = 1,
    .stoppable = true,
    .needs_disk_space = false,
    .validate = validate,
    .make_check = [](const Arguments& arguments, std::span<const RunFile> files) -> std::unique_ptr<Check> {
      return std::make_unique<GrepCheck>(arguments, files[0]);
    },
    .run = run,
};

}  // namespace aprime::kernels
