// usage: stopped_kernels FILE
// Kernels that are stopped, and others that use the same stacks afterwards. To be built with a sanitizer that
// marks frames, against a library that was built without.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdio>

#include "aprime/device_span.hpp"
#include "aprime/launch.hpp"
#include "aprime/runtime.hpp"

namespace {

constexpr unsigned kThreads = 8;

/// Frames upon frames, each with an array, and `at_end` above them.
template <class Fn>
unsigned stack_up(unsigned depth, const Fn& at_end) {
  std::array<volatile unsigned, 33> part{};
  part[depth % part.size()] = depth == 0 ? at_end() : stack_up(depth - 1, at_end);
  unsigned sum = 0;
  for (const volatile unsigned& p : part) sum += p;
  return sum;
}

struct StoreBehindTheEnd {
  void operator()(aprime::device_span<unsigned> words) const {
    stack_up(20, [&] { return words.store(words.size(), 1), 1U; });
  }
};

struct Count {
  void operator()(aprime::device_span<unsigned> words) const {
    for (unsigned depth = 0; depth < 40; ++depth)
      words.store(threadIdx.x, words.load(threadIdx.x) + stack_up(depth, [] { return 1U; }));
  }
};

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) return 2;
  const int fd = ::open(arguments[1], O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0 || ::ftruncate(fd, 1 << 16) != 0) return 2;
  {
    aprime::Runtime runtime;
    const aprime::Mapping m = runtime.map(arguments[1], aprime::Access::read_write);
    for (int i = 0; i < 3; ++i) {
      const auto stopped =
          runtime.launch({{1}, {kThreads}}, StoreBehindTheEnd{}, aprime::demand_read_write(m)).status();
      if (stopped.is_ok()) return std::puts("nothing stopped it"), 1;
      runtime.launch({{1}, {kThreads}}, Count{}, aprime::demand_read_write(m)).wait();
    }
  }
  std::array<unsigned, kThreads> words{};
  if (::pread(fd, words.data(), sizeof words, 0) != sizeof words) return 2;
  for (const unsigned w : words)
    if (w != 3 * 40) return std::printf("counted %u\n", w), 1;
  return 0;
}
