// What a program does, and what a device or the CPU of the process that serves the mount does to the same
// bytes, in both orders, the second begun while the first is stopped at each of its steps in turn. They must
// both end, and everybody must then see the same bytes, which one of the two left.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <future>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <tuple>

#include "aprime/device_span.hpp"
#include "tests/contract/kernels.hpp"
#include "tests/mount/held_calls.hpp"
#include "tests/mount/mounted.hpp"
#include "tests/test_scale.hpp"

namespace aprime {

using test::all;
using test::bytes;
using test::Call;
using test::Client;
using test::Hold;
using test::kGranule;
using test::kSize;
using test::Mounted;
using test::When;

/// What both work on, and what everybody looks at: as many bytes before and behind.
constexpr std::uint64_t kFirst = 4096;
constexpr std::uint64_t kCount = 16;
constexpr std::uint64_t kEnd = kFirst + kCount;
constexpr ByteRange kBytes = bytes(kFirst, kCount);
constexpr std::uint64_t kSeenFirst = kFirst - kCount;
constexpr std::uint64_t kSeenEnd = kEnd + kCount;
/// A fraction of what the test touches.
constexpr std::uint64_t kDeviceGranules = 16;

constexpr unsigned char kBefore = 'b';
constexpr unsigned char kByProgram = 'p';
constexpr unsigned char kByRuntime = 'r';
/// In files that are not the one.
constexpr unsigned char kElsewhere = 'n';
/// How long the second may go on before the first does, unless it ends before. No result depends on it.
constexpr std::chrono::milliseconds kMeanwhile{2};

/// Which of the program's descriptors a step uses.
enum class By : std::uint8_t { file, direct, appending };
/// What becomes of the file's name.
enum class Name : std::uint8_t {
  stays,
  changes,   ///< for that of another file
  is_taken,  ///< by the other file
  is_gone,
};

struct ProgramStep {
  const char* name;
  /// As the client takes it, with names of files in braces.
  const char* command;
  By by = By::file;
  /// What it leaves in the bytes, and in those behind them; as they were if it is kBefore.
  unsigned char leaves = kBefore;
  unsigned char leaves_behind = kBefore;
  std::uint64_t size_before = kSize;
  std::uint64_t size_after = kSize;
  bool shows = false;
  bool makes_durable = false;
  Name name_after = Name::stays;
};
constexpr std::array kProgramSteps{
    ProgramStep{.name = "load", .command = "load 4096 16", .shows = true},
    ProgramStep{.name = "read", .command = "read 4096 16", .shows = true},
    ProgramStep{.name = "store", .command = "store 4096 16 112", .leaves = kByProgram},
    ProgramStep{.name = "write", .command = "write 4096 16 112", .leaves = kByProgram},
    ProgramStep{.name = "append",
                .command = "append 0 16 112",
                .by = By::appending,
                .leaves_behind = kByProgram,
                .size_before = kEnd,
                .size_after = kEnd + kCount},
    ProgramStep{.name = "punch", .command = "punch 4096 16", .leaves = 0},
    ProgramStep{.name = "zero", .command = "zero 4096 16", .leaves = 0},
    ProgramStep{.name = "msync", .command = "msync", .makes_durable = true},
    ProgramStep{.name = "fsync", .command = "fsync", .makes_durable = true},
    ProgramStep{.name = "shrink", .command = "truncate 4112", .size_after = kEnd},
    ProgramStep{.name = "grow", .command = "truncate 65536", .leaves_behind = 0, .size_before = kEnd},
    ProgramStep{.name = "direct_read", .command = "read 4096 4096", .by = By::direct, .shows = true},
    ProgramStep{.name = "direct_write",
                .command = "write 4096 4096 112",
                .by = By::direct,
                .leaves = kByProgram,
                .leaves_behind = kByProgram},
    ProgramStep{.name = "rename", .command = "rename {file} {other}", .name_after = Name::changes},
    ProgramStep{.name = "replace", .command = "rename {other} {file}", .name_after = Name::is_taken},
    ProgramStep{.name = "unlink", .command = "unlink {file}", .name_after = Name::is_gone},
};
static_assert(kByProgram == 112 && kFirst == 4096 && kEnd == 4112 && kSize == 65536);

void PrintTo(const ProgramStep& step, std::ostream* out) { *out << step.name; }

namespace {

/// What the process that serves the mount does meanwhile.
enum class RuntimeStep : std::uint8_t {
  load,
  store,
  store_by_faults,
  /// The whole granule, which is not filled for that.
  overwrite,
  /// Stores, and needs the device's memory for something else: what is dirty goes home.
  store_and_evict,
  sync,
  read_bounce,
  read_migrate,
  write_bounce,
  write_migrate,
};
constexpr std::array kRuntimeSteps{
    RuntimeStep::load,         RuntimeStep::store,           RuntimeStep::store_by_faults,
    RuntimeStep::overwrite,    RuntimeStep::store_and_evict, RuntimeStep::sync,
    RuntimeStep::read_bounce,  RuntimeStep::read_migrate,    RuntimeStep::write_bounce,
    RuntimeStep::write_migrate};

bool stores(RuntimeStep step) {
  switch (step) {
    case RuntimeStep::store:
    case RuntimeStep::store_by_faults:
    case RuntimeStep::overwrite:
    case RuntimeStep::store_and_evict:
    case RuntimeStep::write_bounce:
    case RuntimeStep::write_migrate: return true;
    default: return false;
  }
}

HostAccess access(RuntimeStep step) {
  const bool migrates = step == RuntimeStep::read_migrate || step == RuntimeStep::write_migrate;
  return migrates ? HostAccess::migrate : HostAccess::bounce;
}

/// As a client shows bytes.
std::string hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte b : bytes) text += all(1, std::to_integer<unsigned char>(b));
  return text;
}

struct StoreOnDemand {
  APRIME_DEVICE void operator()(device_span<unsigned char> bytes, unsigned char value) const {
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes.store(i, value);
  }
};

class MountSteps : public testing::TestWithParam<std::tuple<DeviceKind, ProgramStep>> {
 protected:
  MountSteps() {
    mounted_.make("memory", std::string(kDeviceGranules * kGranule, '\0'));
    mounted_.make("shown", std::string(4096, '\0'));
    mounted_.make("elsewhere", std::string(kSize, kElsewhere));
    memory_ = mounted_.map("memory");
    shown_ = mounted_.map("shown");
    elsewhere_.must("open_reading " + mounted_.at("elsewhere"));
    make_file();
  }
  ~MountSteps() override {
    for (Mapping* mapping : {&mapping_, &memory_, &shown_}) *mapping = Mapping();
  }

  /// The file, and the other: new ones, or with new bytes.
  void make_file() {
    mapping_ = Mapping();
    for (const char* name : {"file", "other"}) elsewhere_.must("copy_to " + mounted_.at(name));
    mapping_ = mounted_.map("file");
    client_.must("open " + mounted_.at("file"));
    client_.must("map_random");
    direct_.must("open_direct " + mounted_.at("file"));
    appending_.must("open_appending " + mounted_.at("file"));
  }

  /// The bytes are kBefore, and a device or a program has them.
  void set_up(bool on_device) {
    if (program_.name_after != Name::stays) make_file();
    for (const std::uint64_t size : {kSize, program_.size_before}) {
      client_.must(fmt::format("truncate {}", size));
      const std::uint64_t filled = std::min(size, kGranule);
      if (on_device)
        mounted_.device_stores(mapping_, bytes(0, filled), kBefore);
      else
        client_.must(fmt::format("store 0 {} {}", filled, int{kBefore}));
    }
  }

  std::future<void> begin(const ProgramStep& step) {
    Client& client = step.by == By::file ? client_ : step.by == By::direct ? direct_ : appending_;
    client.begin(fmt::format(fmt::runtime(step.command), fmt::arg("file", mounted_.at("file")),
                             fmt::arg("other", mounted_.at("other"))));
    return std::async(std::launch::async, [this, &client] {
      const std::string answer = client.end();
      EXPECT_TRUE(answer.starts_with("ok")) << answer;
      const unsigned char by_runtime = stores(runtime_step_) ? kByRuntime : kBefore;
      if (program_.shows) expect_shown(answer.substr(3, 2 * kCount), by_runtime, runtime_is_last_ == false);
    });
  }
  std::future<void> begin(RuntimeStep step) {
    return std::async(std::launch::async, [this, step] { run(step); });
  }

  void run(RuntimeStep step) {
    std::array<std::byte, kCount> here{};
    switch (step) {
      case RuntimeStep::load:
        return expect_shown(device_shows(kBytes), program_.leaves, runtime_is_last_ == true);
      case RuntimeStep::store: return mounted_.device_stores(mapping_, kBytes, kByRuntime);
      case RuntimeStep::store_by_faults:
        return mounted_.runtime()
            .launch(Grid::cover(1, 1), StoreOnDemand{}, demand_read_write(mapping_, kBytes), kByRuntime)
            .wait();
      case RuntimeStep::overwrite: return device_overwrites(mapping_, overwritten());
      case RuntimeStep::store_and_evict:
        mounted_.device_stores(mapping_, kBytes, kByRuntime);
        return device_overwrites(memory_, bytes(0, memory_.size_bytes().value));
      case RuntimeStep::sync: return mapping_.sync();
      case RuntimeStep::read_bounce:
      case RuntimeStep::read_migrate:
        mapping_.read(kBytes.first, here, access(step));
        return expect_shown(hex(here), program_.leaves, runtime_is_last_ == true);
      case RuntimeStep::write_bounce:
      case RuntimeStep::write_migrate:
        here.fill(std::byte{kByRuntime});
        return mapping_.write(kBytes.first, here, access(step));
    }
  }
  /// As much of the granule as there is, before and after.
  ByteRange overwritten() const {
    return bytes(0, std::min({kGranule, program_.size_before, program_.size_after}));
  }
  void device_overwrites(const Mapping& mapping, ByteRange range) {
    mounted_.runtime()
        .launch(Grid::cover(256, 64), contract::StoreEverywhere{}, write(mapping, range), kByRuntime)
        .wait();
  }
  std::string device_shows(ByteRange range) {
    mounted_.runtime()
        .launch(Grid::cover(1, 1), contract::CopyBytes{}, read(mapping_, range),
                write(shown_, bytes(0, range.size.value)))
        .wait();
    std::array<std::byte, kSeenEnd - kSeenFirst> here{};
    shown_.read(ByteOffset{0}, std::span(here).first(range.size.value));
    return hex(std::span(here).first(range.size.value));
  }

  /// What one of the two sees of the bytes, where the other leaves `other`.
  void expect_shown(const std::string& text, unsigned char other, bool is_last) {
    for (std::size_t i = 0; i < text.size(); i += 2) {
      const std::string value = text.substr(i, 2);
      const bool is_whole = value == all(1, is_last ? other : kBefore);
      // A granule that is overwritten reads as zeros until it is.
      const bool may_be_other =
          !runtime_is_last_.has_value() &&
          (value == all(1, other) || (runtime_step_ == RuntimeStep::overwrite && value == all(1, 0)));
      EXPECT_TRUE(is_whole || may_be_other) << text;
    }
  }

  /// Both have ended.
  void check() {
    const std::uint64_t size = std::min(kSeenEnd, program_.size_after) - kSeenFirst;
    const std::string where = fmt::format("{} {}", kSeenFirst, size);
    const std::string durable = runtime_is_last_.has_value() ? content_if_durable() : std::string();
    const std::string seen = client_.bytes("read " + where);
    EXPECT_EQ(seen.size(), 2 * size);
    if (!durable.empty()) {
      EXPECT_EQ(hex(std::as_bytes(std::span(durable)).subspan(kSeenFirst, size)), seen);
    }
    EXPECT_EQ(client_.bytes("load " + where), seen);
    EXPECT_EQ(client_.ask("size"), fmt::format("ok {}", program_.size_after));
    EXPECT_EQ(direct_.bytes(fmt::format("read {} 4096", kFirst)).substr(0, 2 * (size - kCount)),
              seen.substr(2 * kCount));
    std::array<std::byte, kSeenEnd - kSeenFirst> here{};
    mapping_.read(ByteOffset{kSeenFirst}, std::span(here).first(size));
    EXPECT_EQ(hex(std::span(here).first(size)), seen);
    EXPECT_EQ(device_shows(bytes(kSeenFirst, size)), seen);
    check_values(seen);
    check_names(seen);
    EXPECT_EQ(client_.bytes("read " + where), seen);
  }

  /// The file as it is past aprime, if the last step has brought everything there.
  std::string content_if_durable() const {
    const bool is_durable = *runtime_is_last_ ? runtime_step_ == RuntimeStep::sync : program_.makes_durable;
    if (!is_durable || program_.name_after == Name::is_taken || program_.name_after == Name::is_gone)
      return {};
    return mounted_.content(program_.name_after == Name::changes ? "other" : "file");
  }

  void check_values(const std::string& seen) {
    const bool is_overwritten = runtime_step_ == RuntimeStep::overwrite;
    for (std::uint64_t at = kSeenFirst; at < kSeenFirst + seen.size() / 2; ++at) {
      const bool is_behind = at >= kEnd, is_before = at < kFirst;
      const unsigned char program = is_before   ? kBefore
                                    : is_behind ? program_.leaves_behind
                                                : program_.leaves;
      const bool by_runtime =
          is_overwritten ? at < overwritten().end().value : stores(runtime_step_) && !is_before && !is_behind;
      const std::string value = seen.substr(2 * (at - kSeenFirst), 2);
      const bool may_be_program = program != kBefore && (!by_runtime || runtime_is_last_ != true);
      const bool may_be_runtime = by_runtime && (program == kBefore || runtime_is_last_ != false);
      EXPECT_TRUE((may_be_program && value == all(1, program)) ||
                  (may_be_runtime && value == all(1, kByRuntime)) ||
                  (program == kBefore && !by_runtime && value == all(1, kBefore)))
          << "byte " << at << " is " << value;
    }
    const unsigned char ahead = is_overwritten ? kByRuntime : kBefore;
    EXPECT_EQ(mounted_.device_misses(mapping_, bytes(0, kSeenFirst), ahead), 0u);
  }

  /// Who opens the file by its name sees the same, and who opens another of that name sees nothing of it.
  void check_names(const std::string& seen) {
    Client fresh;
    const std::string open = "open_reading " + mounted_.at("file");
    if (program_.name_after == Name::changes || program_.name_after == Name::is_gone) {
      EXPECT_EQ(fresh.ask(open), fmt::format("errno {}", ENOENT));
    }
    if (program_.name_after == Name::stays || program_.name_after == Name::changes) {
      fresh.must(program_.name_after == Name::stays ? open : "open_reading " + mounted_.at("other"));
      EXPECT_EQ(fresh.bytes(fmt::format("read {} {}", kSeenFirst, seen.size() / 2)), seen);
      return;
    }
    if (program_.name_after == Name::is_gone) elsewhere_.must("copy_to " + mounted_.at("file"));
    mapping_.sync();
    EXPECT_EQ(mounted_.content("file"), std::string(kSize, kElsewhere));
    fresh.must(open);
    EXPECT_EQ(fresh.bytes(fmt::format("read 0 {}", kSize)), all(kSize, kElsewhere));
  }

  /// How many moments the first comes by that is not disturbed; and that each order by itself is right.
  template <class First, class Second>
  unsigned in_order(bool on_device, First first, Second second) {
    set_up(on_device);
    runtime_is_last_ = std::is_same_v<Second, RuntimeStep>;
    unsigned moments = 0;
    {
      const Hold counter({.call = Call::any, .when = When::before, .nth = 0});
      begin(first).get();
      moments = counter.count();
    }
    begin(second).get();
    if (runtime_is_last_ == true && runtime_step_ == RuntimeStep::store_and_evict) {
      EXPECT_EQ(mapping_.snapshot(kBytes).front().devices, 0u);
    }
    check();
    runtime_is_last_.reset();
    return moments;
  }

  template <class First, class Second>
  void overlap(First first, Second second) {
    for (const bool on_device : {false, true}) {
      SCOPED_TRACE(fmt::format("step {} of the runtime, {} has the bytes", static_cast<int>(runtime_step_),
                               on_device ? "a device" : "a program"));
      const unsigned moments = in_order(on_device, first, second);
      // After one call is before the next.
      for (unsigned n = 1; n <= moments + 1 && !HasFailure(); n += kStride) {
        const bool is_at_end = n > moments;
        SCOPED_TRACE(fmt::format("stopped at call {} of {}", n, moments));
        set_up(on_device);
        Hold hold({.call = Call::any,
                   .when = is_at_end ? When::after : When::before,
                   .nth = is_at_end ? moments : n});
        std::future<void> one = begin(first);
        while (!hold.is_reached() && one.wait_for(std::chrono::microseconds(50)) != kReady) {
        }
        held_ += hold.is_reached() ? 1 : 0;
        std::future<void> other = begin(second);
        static_cast<void>(other.wait_for(kMeanwhile));
        hold.release();
        one.get();
        other.get();
        check();
      }
      if (HasFailure()) return;
    }
  }

  /// For each step of the runtime.
  template <class Both>
  void for_each(Both both) {
    for (const RuntimeStep step : kRuntimeSteps) {
      runtime_step_ = step;
      both(step);
      if (HasFailure()) return;
    }
    EXPECT_GE(held_, kRuntimeSteps.size());
    RecordProperty("stops", static_cast<int>(held_));
  }

  static constexpr std::future_status kReady = std::future_status::ready;
  const unsigned kStride = test::scaled(16u) == 16u ? 1 : 5;

  const ProgramStep program_{std::get<1>(GetParam())};
  RuntimeStep runtime_step_{};
  /// Where one of the two begins when the other has ended.
  std::optional<bool> runtime_is_last_;
  Mounted mounted_{std::get<0>(GetParam()), HostAccess::adaptive, ByteCount{kDeviceGranules * kGranule}};
  Mapping mapping_;
  /// As large as the device's memory.
  Mapping memory_;
  /// What a device shows.
  Mapping shown_;
  Client client_;
  Client direct_;
  Client appending_;
  Client elsewhere_;
  /// How often the first was stopped.
  unsigned held_ = 0;
};

TEST_P(MountSteps, program_first) {
  for_each([this](RuntimeStep step) { overlap(program_, step); });
}

TEST_P(MountSteps, runtime_first) {
  for_each([this](RuntimeStep step) { overlap(step, program_); });
}

std::string name_of(const testing::TestParamInfo<std::tuple<DeviceKind, ProgramStep>>& info) {
  const auto& [kind, program] = info.param;
  return std::string(kind == DeviceKind::emulated ? "faulting_" : "strict_") + program.name;
}

INSTANTIATE_TEST_SUITE_P(Each, MountSteps,
                         testing::Combine(testing::Values(DeviceKind::emulated, DeviceKind::emulated_strict),
                                          testing::ValuesIn(kProgramSteps)),
                         name_of);

}  // namespace
}  // namespace aprime
