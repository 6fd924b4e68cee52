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

std::uint64_t count_by_cpu(const std::string& path, const std::string& literal) {
  PlainFile file(path);
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
  explicit GrepCheck(const Arguments& arguments)
      : matches_(count_by_cpu(arguments.files[0], arguments.literal)) {}

  std::string disagreement(const Result& result) override {
    const auto matches = std::get<std::uint64_t>(result.front().second);
    if (matches == matches_) return {};
    return std::to_string(matches) + " matches; the CPU finds " + std::to_string(matches_);
  }

 private:
  std::uint64_t matches_;
};

void validate(const Arguments& arguments, std::span<const Mapping>) {
  if (arguments.literal.empty()) throw InputError("LITERAL is empty: give at least one byte to look for");
}

Result run(Session& session, const Arguments& arguments, std::span<const Mapping> files) {
  const std::string& literal = arguments.literal;
  const ByteCount size = files[0].size_bytes();
  const ByteCount scratch_bytes{sizeof(GrepHeader) + literal.size()};
  const Scratch scratch(session.runtime(), scratch_bytes);
  scratch.mapping().write(ByteOffset{sizeof(GrepHeader)}, std::as_bytes(std::span(literal)));

  // Each lease reaches past its chunk by what a match that begins on the chunk's last byte needs.
  const std::uint64_t overlap = literal.size() - 1;
  const std::uint64_t overlap_granules = (overlap + session.granule().value - 1) / session.granule().value;
  const ByteCount extra{scratch_bytes.value + (overlap_granules + 1) * session.granule().value};
  const ByteCount chunk = session.lease_bytes(1, extra);
  session.stream("searching", size, chunk, [&](ByteRange range) {
    const std::uint64_t end = std::min(range.end().value + overlap, size.value);
    const ByteRange leased{range.first, ByteCount{end - range.first.value}};
    const std::uint64_t tiles = (range.size.value + GrepKernel::kTileBytes - 1) / GrepKernel::kTileBytes;
    const Grid grid{.blocks = {static_cast<unsigned>(tiles), 1, 1}, .threads = {GrepKernel::kThreads, 1, 1}};
    session.run("grep", grid, GrepKernel{literal.size()}, read(files[0], leased),
                read_write(scratch.mapping()));
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
    .make_check = [](const Arguments& arguments) -> std::unique_ptr<Check> {
      return std::make_unique<GrepCheck>(arguments);
    },
    .run = run,
};

}  // namespace aprime::kernels
