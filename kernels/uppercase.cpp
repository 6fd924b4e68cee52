#include "kernels/uppercase.hpp"

#include <array>
#include <string_view>

#include "kernels/fingerprint.hpp"
#include "kernels/plain_file.hpp"
#include "kernels/uppercase_kernel.hpp"

namespace aprime::kernels {
namespace {

constexpr Argument kArguments[] = {{"FILE", "file to change in place", Access::read_write}};

unsigned char uppercase_by_cpu(unsigned char byte) {
  constexpr std::string_view kLower = "abcdefghijklmnopqrstuvwxyz";
  constexpr std::string_view kUpper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const auto at = kLower.find(static_cast<char>(byte));
  return at == std::string_view::npos ? byte : static_cast<unsigned char>(kUpper[at]);
}

/// Of the file as it is, or as it should become.
Fingerprint fingerprint_of(const RunFile& file, bool as_it_should_become) {
  std::array<unsigned char, 256> becomes{};
  for (unsigned i = 0; i < 256; ++i) {
    const auto byte = static_cast<unsigned char>(i);
    becomes[i] = as_it_should_become ? uppercase_by_cpu(byte) : byte;
  }
  Fingerprint print(file.size.value);
  for_each_element<unsigned char>(
      file, [&](std::uint64_t index, unsigned char byte) { print.add(index, becomes[byte]); });
  return print;
}

class UppercaseCheck final : public Check {
 public:
  explicit UppercaseCheck(const RunFile& file) : file_(file), expected_(fingerprint_of(file, true)) {}

  std::string disagreement(const Result&) override {
    return expected_.disagreement(fingerprint_of(file_, false), 1);
  }

 private:
  RunFile file_;
  Fingerprint expected_;
};

Result run(Session& session, const Arguments&, std::span<const Mapping> files) {
  const ByteCount size = files[0].size_bytes();
  session.stream("changing to upper case", size, session.lease_bytes(1), [&](ByteRange range) {
    const std::uint64_t tiles =
        (range.size.value + UppercaseKernel::kTileBytes - 1) / UppercaseKernel::kTileBytes;
    const Grid grid{.blocks = {static_cast<unsigned>(tiles), 1, 1},
                    .threads = {UppercaseKernel::kThreads, 1, 1}};
    session.queue("uppercase", grid, UppercaseKernel{}, read_write(files[0], range));
  });
  return {{"bytes", size.value}};
}

}  // namespace

constinit const Workload uppercase{
    .name = "uppercase",
    .help = "turn ASCII letters into upper case, in place",
    .arguments = kArguments,
    .element_bytes = 1,
    .stoppable = true,
    .needs_disk_space = false,
    .validate = nullptr,
    .make_check = [](const Arguments&, std::span<const RunFile> files) -> std::unique_ptr<Check> {
      return std::make_unique<UppercaseCheck>(files[0]);
    },
    .run = run,
};

}  // namespace aprime::kernels
