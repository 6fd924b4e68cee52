#include "kernels/saxpy.hpp"

#include <bit>
#include <cmath>

#include "kernels/fingerprint.hpp"
#include "kernels/plain_file.hpp"
#include "kernels/saxpy_kernel.hpp"

namespace aprime::kernels {
namespace {

constexpr Argument kArguments[] = {
    {"Y", "file of float32 values to change in place", Access::read_write},
    {"X", "file of as many float32 values", Access::read},
    {"--a", "the factor", &Arguments::a},
};

/// Bits to compare: which of the many NaNs comes out is not defined.
std::uint32_t comparable_bits(float value) {
  return std::isnan(value) ? 0x7fff'ffffU : std::bit_cast<std::uint32_t>(value);
}

/// Bit for bit, except that one NaN is as good as another.
class SaxpyCheck final : public Check {
 public:
  SaxpyCheck(const Arguments& arguments, std::span<const RunFile> files)
      : file_(files[0]), expected_(file_.size.value / sizeof(float)) {
    constexpr std::size_t kElements = std::size_t{1} << 18;
    PlainFile y_file(files[0]);
    PlainFile x_file(files[1]);
    std::vector<float> y(kElements);
    std::vector<float> x(kElements);
    std::uint64_t position = 0;
    for (std::size_t count = kElements; count == kElements;) {
      count = y_file.next(std::as_writable_bytes(std::span(y))) / sizeof(float);
      x_file.next(std::as_writable_bytes(std::span(x)));
      for (std::size_t i = 0; i < count; ++i) {
        expected_.add(position++, comparable_bits(std::fma(arguments.a, x[i], y[i])));
      }
    }
  }

  std::string disagreement(const Result&) override {
    Fingerprint actual(file_.size.value / sizeof(float));
    for_each_element<float>(file_,
                            [&](std::uint64_t i, float value) { actual.add(i, comparable_bits(value)); });
    return expected_.disagreement(actual, sizeof(float));
  }

 private:
  RunFile file_;
  Fingerprint expected_;
};

void validate(const Arguments& arguments, std::span<const Mapping> files) {
  const std::uint64_t y = files[0].size_bytes().value;
  const std::uint64_t x = files[1].size_bytes().value;
  if (y != x) {
    throw InputError(arguments.files[1] + ": holds " + std::to_string(x / sizeof(float)) + " values but " +
                     arguments.files[0] + " holds " + std::to_string(y / sizeof(float)) +
                     "; give two files of one size");
  }
}

Result run(Session& session, const Arguments& arguments, std::span<const Mapping> files) {
  const ByteCount size = files[0].size_bytes();
  session.stream("computing", size, session.lease_bytes(2), [&](ByteRange range) {
    const std::uint64_t elements = range.size.value / sizeof(float);
    const std::uint64_t threads =
        (elements + SaxpyKernel::kElementsPerThread - 1) / SaxpyKernel::kElementsPerThread;
    session.queue("saxpy", Grid::cover(threads, SaxpyKernel::kThreads), SaxpyKernel{arguments.a},
                  read_write(files[0], range), read(files[1], range));
  });
  return {{"elements", size.value / sizeof(float)}};
}

}  // namespace

constinit const Workload saxpy{
    .name = "saxpy",
    .help = "y = a * x + y for float32 values, fused, in place",
    .arguments = kArguments,
    .element_bytes = sizeof(float),
    .stoppable = false,
    .needs_disk_space = true,
    .validate = validate,
    .make_check = [](const Arguments& arguments, std::span<const RunFile> files) -> std::unique_ptr<Check> {
      return std::make_unique<SaxpyCheck>(arguments, files);
    },
    .run = run,
};

}  // namespace aprime::kernels
