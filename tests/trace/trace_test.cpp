#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "aprime/aprime.hpp"
#include "tests/os/temporary_file.hpp"
#include "tests/trace/nvtx_recorder.hpp"

// What a profiler is told, as NvtxRecorder, which NVTX takes for one, was told it.

namespace aprime {
namespace {

using test::TraceEvent;
using test::TraceRecorder;
using What = TraceEvent::What;
using namespace aprime::literals;

using Byte = unsigned char;
constexpr std::size_t kStride = 4096;

// A thread for each page, so that a launch is small, and neighbours run one after the other.

struct CopyStrided {
  APRIME_DEVICE void operator()(LeasedSpan<const Byte> from, LeasedSpan<Byte> to) const {
    const std::size_t i = (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x) * kStride;
    if (i < to.size()) to[i] = from[i];
  }
};

struct IncrementStrided {
  APRIME_DEVICE void operator()(LeasedSpan<Byte> bytes) const {
    const std::size_t i = (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x) * kStride;
    if (i < bytes.size()) bytes[i] = static_cast<Byte>(bytes[i] + 1);
  }
};

/// A range that has ended.
struct Span {
  std::string name;
  std::string category;
  pid_t thread;
  bool has_payload;
  std::uint64_t payload;
  /// The ranges around it, the outermost first.
  std::vector<std::string> around;
  std::vector<std::string> categories_around;
};

/// Pairs pushes with pops, thread by thread.
std::vector<Span> spans() {
  std::vector<Span> done;
  std::map<pid_t, std::vector<Span>> open;
  for (const TraceEvent& event : TraceRecorder::events()) {
    std::vector<Span>& stack = open[event.thread];
    if (event.what == What::push) {
      Span span{
          event.name.data(), event.category.data(), event.thread, event.has_payload, event.value, {}, {}};
      for (const Span& outer : stack) {
        span.around.push_back(outer.name);
        span.categories_around.push_back(outer.category);
      }
      stack.push_back(std::move(span));
    } else if (event.what == What::pop) {
      if (stack.empty()) {
        ADD_FAILURE() << "thread " << event.thread << " ends a range that it did not begin";
        continue;
      }
      done.push_back(std::move(stack.back()));
      stack.pop_back();
    }
  }
  for (const auto& [thread, stack] : open)
    for (const Span& span : stack) ADD_FAILURE() << "thread " << thread << " never ends " << span.name;
  return done;
}

bool is_around(const std::vector<std::string>& around, std::string_view wanted) {
  return std::find(around.begin(), around.end(), wanted) != around.end();
}

std::uint64_t count(const std::vector<Span>& all, std::string_view name) {
  return static_cast<std::uint64_t>(
      std::count_if(all.begin(), all.end(), [&](const Span& s) { return s.name == name; }));
}

std::uint64_t bytes(const std::vector<Span>& all, std::string_view name) {
  std::uint64_t sum = 0;
  for (const Span& span : all)
    if (span.name == name) sum += span.payload;
  return sum;
}

struct Samples {
  std::uint64_t highest = 0;
  std::uint64_t last = 0;
};
std::map<std::string, Samples> samples() {
  std::map<std::string, Samples> all;
  for (const TraceEvent& event : TraceRecorder::events()) {
    if (event.what != What::sample) continue;
    Samples& of = all[event.name.data()];
    of.highest = std::max(of.highest, event.value);
    of.last = event.value;
  }
  return all;
}

class Trace : public ::testing::TestWithParam<DeviceKind> {
 protected:
  static constexpr std::uint64_t kGranule = 16 * 1024;

  static void SetUpTestSuite() {
    ASSERT_EQ(::setenv("NVTX_INJECTION64_PATH", TraceRecorder::path().c_str(), 1), 0);
  }
  void SetUp() override { TraceRecorder::clear(); }
  void TearDown() override { EXPECT_EQ(TraceRecorder::misuse(), ""); }

  static RuntimeOptions options(ByteCount device_memory) {
    RuntimeOptions options;
    options.devices = {DeviceOptions{.kind = GetParam(), .memory = device_memory, .workers = 2}};
    options.granule = ByteCount{kGranule};
    options.host_access = HostAccess::migrate;
    options.dirty_age_max = std::chrono::milliseconds{0};  // nothing moves but what the test moves
    return options;
  }
  static const char* device() {
    return GetParam() == DeviceKind::emulated ? "device 0 (emulated)" : "device 0 (emulated-strict)";
  }

  std::string file(const char* name, std::size_t size) { return directory_.file(name, test::pattern(size)); }

  /// Every kind of range at least once, on granules that go to and fro. Returns what the runtime counted.
  Stats go_to_and_fro(Runtime& runtime, std::size_t size) {
    const Grid grid = Grid::cover(size / kStride, 8);
    {
      Mapping from = runtime.map(file("from", size), Access::read_write);
      Mapping to = runtime.map(file("to", size), Access::read_write);
      Byte* const pointer = from.host<Byte>().data();
      pointer[0] = 1;
      runtime.launch(grid, CopyStrided{}, read(from), read_write(to)).wait();
      runtime.launch(grid, IncrementStrided{}, read_write(from)).wait();
      for (std::size_t at = 0; at < size; at += kGranule) sum_ += static_cast<volatile Byte*>(pointer)[at];
      runtime.launch(grid, IncrementStrided{}, read_write(from)).wait();
      for (std::size_t at = 0; at < size; at += kGranule) static_cast<volatile Byte*>(pointer)[at] = 2;
      runtime.launch(grid, IncrementStrided{}, read_write(from)).wait();
      from.sync();
      const HostLease lease = to.host_lease({ByteOffset{0}, ByteCount{size}}, Right::read);
    }
    runtime.close();
    return runtime.stats();
  }

  test::TemporaryDirectory directory_;
  unsigned sum_ = 0;
};

/// Where a launch may touch more than device memory holds.
class TraceWithFaults : public Trace {};

TEST_P(Trace, EveryKindOfRangeAppearsWithTheBytesThatWereMoved) {
  constexpr std::size_t kSize = 6 * kGranule;
  Stats stats;
  {
    Runtime runtime(options(ByteCount{16 * kGranule}));
    stats = go_to_and_fro(runtime, kSize);
  }
  const std::vector<Span> all = spans();

  EXPECT_GT(stats.bytes_filled, 0u);
  EXPECT_EQ(bytes(all, "fill"), stats.bytes_filled);
  EXPECT_GT(stats.bytes_copied_back, 0u);
  EXPECT_EQ(bytes(all, "copy back"), stats.bytes_copied_back);
  EXPECT_EQ(count(all, "device read fault"), stats.faults.device_read);
  EXPECT_EQ(count(all, "device write fault"), stats.faults.device_write);
  EXPECT_EQ(count(all, "host read fault"), stats.faults.host_read);
  EXPECT_EQ(count(all, "host write fault"), stats.faults.host_write);
  EXPECT_GT(stats.faults.host_read, 0u);
  EXPECT_GT(stats.faults.host_write, 0u);
  EXPECT_EQ(stats.faults.device_read > 0, GetParam() == DeviceKind::emulated);
  EXPECT_EQ(stats.faults.device_write > 0, GetParam() == DeviceKind::emulated);

  EXPECT_GE(bytes(all, "revoke"), 2 * kSize);
  EXPECT_EQ(count(all, "sync"), 1u);
  EXPECT_EQ(bytes(all, "writeback"), kSize) << "the sync's; the host lease has brought home the other file";
  EXPECT_EQ(count(all, "CopyStrided"), 1u);
  EXPECT_EQ(count(all, "IncrementStrided"), 3u);
  const std::uint64_t leased_by_launches = GetParam() == DeviceKind::emulated ? 0 : 5 * kSize;
  EXPECT_EQ(bytes(all, "lease"), leased_by_launches + kSize);
}

TEST_P(Trace, EachRangeHasACategoryAndLiesWhereItBelongs) {
  {
    Runtime runtime(options(ByteCount{16 * kGranule}));
    go_to_and_fro(runtime, 6 * kGranule);
  }
  const std::map<std::string, std::string> categories{{"device read fault", "fault"},
                                                      {"device write fault", "fault"},
                                                      {"host read fault", "fault"},
                                                      {"host write fault", "fault"},
                                                      {"fill", "copy"},
                                                      {"copy back", "copy"},
                                                      {"revoke", "revoke"},
                                                      {"writeback", "writeback"},
                                                      {"sync", "writeback"},
                                                      {"lease", "lease"},
                                                      {"CopyStrided", "launch"},
                                                      {"IncrementStrided", "launch"}};
  std::uint64_t written_back = 0;
  pid_t launcher = 0;
  for (const Span& span : spans()) {
    const auto category = categories.find(span.name);
    ASSERT_NE(category, categories.end()) << span.name;
    EXPECT_EQ(span.category, category->second) << span.name;

    const bool is_served = is_around(span.categories_around, "fault");
    if (span.name == "fill") {
      EXPECT_TRUE(is_served || is_around(span.around, "lease"));
    }
    if (span.name == "lease" && span.thread != ::gettid()) {
      EXPECT_TRUE(is_around(span.categories_around, "launch"));
    }
    if (span.name == "writeback") {
      EXPECT_EQ(span.around, std::vector<std::string>{"sync"});
    }
    if (span.name == "copy back" && is_around(span.around, "writeback")) written_back += span.payload;
    if (span.name.starts_with("host")) {
      EXPECT_EQ(span.thread, ::gettid());
    }
    if (span.name.starts_with("device")) {
      EXPECT_NE(span.thread, ::gettid());
    }
    if (span.category == "launch") {
      EXPECT_NE(span.thread, ::gettid());
      EXPECT_TRUE(launcher == 0 || launcher == span.thread) << "a device runs its launches on one thread";
      launcher = span.thread;
    }
    const bool moves =
        span.category == "copy" || span.name == "revoke" || span.name == "writeback" || span.name == "lease";
    EXPECT_EQ(span.has_payload, moves) << span.name;
  }
  EXPECT_EQ(written_back, 6 * kGranule);
}

TEST_P(Trace, CountersFollowDeviceMemoryAndEndAtZero) {
  constexpr std::size_t kSize = 6 * kGranule;
  {
    Runtime runtime(options(ByteCount{16 * kGranule}));
    go_to_and_fro(runtime, kSize);
  }
  const std::map<std::string, Samples> all = samples();
  ASSERT_EQ(all.size(), TraceRecorder::can_count() ? 2u : 0u);
  if (all.empty()) return;
  const Samples resident = all.at(std::string(device()) + ": resident bytes");
  const Samples dirty = all.at(std::string(device()) + ": dirty bytes");
  EXPECT_EQ(resident.highest, 2 * kSize);
  EXPECT_EQ(dirty.highest, 2 * kSize);
  EXPECT_EQ(resident.last, 0u);
  EXPECT_EQ(dirty.last, 0u);
}

TEST_P(TraceWithFaults, NumbersAreRightWhenManyThreadsEvict) {
  constexpr std::size_t kSize = 64 * kGranule;
  Stats stats;
  {
    Runtime runtime(options(ByteCount{16 * kGranule}));
    {
      const Mapping mapping = runtime.map(file("large", kSize), Access::read_write);
      for (int turn = 0; turn < 2; ++turn)
        runtime.launch(Grid::cover(kSize / kStride, 8), IncrementStrided{}, read_write(mapping)).wait();
    }
    runtime.close();
    stats = runtime.stats();
  }
  EXPECT_GT(stats.evictions, 0u);
  const std::vector<Span> all = spans();
  EXPECT_EQ(bytes(all, "fill"), stats.bytes_filled);
  EXPECT_EQ(bytes(all, "copy back"), stats.bytes_copied_back);
  for (const auto& [name, values] : samples()) {
    EXPECT_LE(values.highest, 16 * kGranule) << name;
    EXPECT_EQ(values.last, 0u) << name;
  }
}

TEST_P(Trace, TheSearchForAToolIsOverBeforeAnythingCanTrap) {
  Runtime runtime(options(ByteCount{16 * kGranule}));
  const int before = TraceRecorder::initializations();
  EXPECT_EQ(before, TraceRecorder::can_count() ? 2 : 1);
  go_to_and_fro(runtime, 6 * kGranule);
  EXPECT_EQ(TraceRecorder::initializations(), before);
}

TEST_P(Trace, RuntimesShareTheDomainUntilTheLastOneEnds) {
  {
    Runtime last(options(ByteCount{16 * kGranule}));
    {
      Runtime first(options(ByteCount{16 * kGranule}));
      EXPECT_EQ(TraceRecorder::open_domains("aprime"), 1);
    }
    go_to_and_fro(last, 6 * kGranule);
    EXPECT_EQ(TraceRecorder::open_domains("aprime"), 1);
  }
  EXPECT_EQ(TraceRecorder::open_domains("aprime"), 0);
  {
    Runtime again(options(ByteCount{16 * kGranule}));
    EXPECT_EQ(TraceRecorder::open_domains("aprime"), 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, TraceWithFaults, ::testing::Values(DeviceKind::emulated));
INSTANTIATE_TEST_SUITE_P(Devices, Trace, ::testing::Values(DeviceKind::emulated, DeviceKind::emulated_strict),
                         [](const auto& kind) {
                           return kind.param == DeviceKind::emulated ? "emulated" : "strict";
                         });

}  // namespace
}  // namespace aprime
