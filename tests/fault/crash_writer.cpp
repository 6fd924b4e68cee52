// usage: crash_writer FILE BOARD-DESCRIPTOR SEED sync|claim|home
// Stores to FILE in every way there is and syncs now and then, telling the board, until somebody kills it.
// Two ways to lie about sync, for the test of the test: "claim" does nothing, "home" brings the bytes home,
// which is not the same as to disk.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>
#include <string_view>
#include <vector>

#include "aprime/aprime.hpp"
#include "tests/fault/crash_board.hpp"

namespace aprime::fault {
namespace {

struct StoreWords {
  APRIME_DEVICE void operator()(LeasedSpan<std::uint64_t> words, std::uint64_t store,
                                std::size_t first_granule) const {
    for (std::size_t i = threadIdx.x; i < words.size(); i += blockDim.x)
      words[i] = crash_word(store, first_granule + i / kCrashWords);
  }
};

RuntimeOptions options_for(unsigned seed) {
  const DeviceOptions device{.kind = seed % 3 == 2 ? DeviceKind::emulated_strict : DeviceKind::emulated,
                             .memory = ByteCount{16 * kCrashGranuleBytes},  // so that granules are evicted
                             .workers = 1,
                             .without_userfaultfd = seed % 3 == 1};
  return {.devices = {device},
          .granule = ByteCount{kCrashGranuleBytes},
          .dirty_age_max = std::chrono::milliseconds(seed % 2 == 0 ? 20 : 0)};
}

class Writer {
 public:
  Writer(const char* path, CrashBoard& board, unsigned seed, std::string_view mode)
      : board_(board),
        random_(seed),
        mode_(mode),
        runtime_(options_for(seed)),
        mapping_(runtime_.map(path, Access::read_write)),
        host_(mapping_.host<std::uint64_t>()),
        buffer_(static_cast<std::uint64_t*>(::operator new (kCrashGranuleBytes, std::align_val_t{4096}))) {}

  [[noreturn]] void run() {
    for (;;) {
      for (std::uint64_t stores = 1 + pick(8); stores > 0; --stores) store();
      sync();
    }
  }

 private:
  std::uint64_t pick(std::uint64_t below) { return random_() % below; }
  static ByteRange granules(std::size_t first, std::size_t count) {
    return {ByteOffset{first * kCrashGranuleBytes}, ByteCount{count * kCrashGranuleBytes}};
  }

  void store() {
    const std::size_t first = pick(kCrashGranules);
    const std::size_t count = std::min<std::size_t>(1 + pick(4), kCrashGranules - first);
    ++store_;
    const unsigned way = static_cast<unsigned>(pick(8));
    const std::size_t reached = way < 3 ? count : 1;
    for (std::size_t g = first; g < first + reached; ++g) board_.begun[g].store(store_);
    const auto bytes = granules(first, reached);
    if (way < 3) {
      // Twice as often: this is what aprime is for.
      const Grid grid{{1}, {64}, 0};
      way == 0 ? runtime_.launch(grid, StoreWords{}, write(mapping_, bytes), store_, first).wait()
               : runtime_.launch(grid, StoreWords{}, read_write(mapping_, bytes), store_, first).wait();
    } else if (way == 3) {
      for (std::size_t i = 0; i < kCrashWords; ++i)
        host_[first * kCrashWords + i] = crash_word(store_, first);
    } else {
      std::fill_n(buffer_, kCrashWords, crash_word(store_, first));
      const std::span<const std::byte> from = std::as_bytes(std::span(buffer_, kCrashWords));
      if (way == 4)
        mapping_.write_direct(bytes.first, from);
      else
        mapping_.write(bytes.first, from,
                       way == 5   ? HostAccess::bounce
                       : way == 6 ? HostAccess::migrate
                                  : HostAccess::adaptive);
    }
    for (std::size_t g = first; g < first + reached; ++g) stored_[g] = store_;
  }

  void sync() {
    const std::size_t first = pick(2) == 0 ? 0 : pick(kCrashGranules);
    const std::size_t count = kCrashGranules - first;
    if (mode_ == "sync") mapping_.sync(granules(first, count));
    if (mode_ == "home") mapping_.prefetch_home(granules(first, count));
    for (std::size_t g = first; g < first + count; ++g) board_.durable[g].store(stored_[g]);
    board_.syncs.fetch_add(1);
  }

  CrashBoard& board_;
  std::mt19937_64 random_;
  const std::string_view mode_;
  Runtime runtime_;
  Mapping mapping_;
  const std::span<std::uint64_t> host_;
  std::uint64_t* const buffer_;
  std::uint64_t store_ = 0;
  std::array<std::uint64_t, kCrashGranules> stored_{};
};

}  // namespace
}  // namespace aprime::fault

int main(int argc, char** argv) {
  using aprime::fault::CrashBoard;
  if (argc != 5) return 2;
  void* board =
      ::mmap(nullptr, sizeof(CrashBoard), PROT_READ | PROT_WRITE, MAP_SHARED, std::atoi(argv[2]), 0);
  if (board == MAP_FAILED) return 3;
  try {
    aprime::fault::Writer writer(argv[1], *static_cast<CrashBoard*>(board),
                                 static_cast<unsigned>(std::strtoul(argv[3], nullptr, 10)), argv[4]);
    writer.run();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "crash_writer: %s\n", e.what());
    return 1;
  }
}
