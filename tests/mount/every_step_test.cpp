// What a program does and what a device does to the same bytes, in both orders, the second begun while the
// first is stopped at each of its steps in turn. They must both end, and everybody must then see the same
// bytes, which one of the two left.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include "aprime/device_span.hpp"
#include "tests/mount/held_calls.hpp"
#include "tests/mount/mounted.hpp"
#include "tests/test_scale.hpp"

namespace aprime {
namespace {

using test::Call;
using test::Client;
using test::Hold;
using test::Moment;
using test::Mounted;
using test::When;

constexpr std::uint64_t kGranule = 16384;
constexpr std::uint64_t kSize = 4 * kGranule;
constexpr ByteRange kGranule0{ByteOffset{0}, ByteCount{kGranule}};
/// What both work on.
constexpr ByteRange kBytes{ByteOffset{4096}, ByteCount{16}};
constexpr unsigned char kBefore = 'b';
constexpr unsigned char kByDevice = 'd';
/// How long the second may go on before the first does, unless it ends before. No result depends on it.
constexpr std::chrono::milliseconds kMeanwhile{2};

struct ProgramStep {
  const char* command;
  /// What it leaves in the bytes; as they were if it is kBefore.
  unsigned char leaves = kBefore;
  bool is_direct = false;
};
constexpr std::array kProgramSteps{
    ProgramStep{"load 4096 16"},
    ProgramStep{"read 4096 16"},
    ProgramStep{"store 4096 16 112", 'p'},
    ProgramStep{"write 4096 16 112", 'p'},
    ProgramStep{"punch 4096 16", 0},
    ProgramStep{"msync"},
    ProgramStep{"fsync"},
    ProgramStep{"truncate 4112"},
    ProgramStep{"read 4096 4096", kBefore, true},
    ProgramStep{"write 4096 4096 112", 'p', true},
};

enum class DeviceStep : std::uint8_t { loads, stores, faults };
constexpr std::array kDeviceSteps{DeviceStep::loads, DeviceStep::stores, DeviceStep::faults};

struct StoreOnDemand {
  APRIME_DEVICE void operator()(device_span<unsigned char> bytes, unsigned char value) const {
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes.store(i, value);
  }
};

class MountSteps : public testing::TestWithParam<DeviceKind> {
 protected:
  MountSteps() {
    mounted_.make("file", std::string(kSize, 'h'));
    mapping_ = mounted_.map("file");
    client_.must("open " + mounted_.at("file"));
    client_.must("map_random");
    direct_.must("open_direct " + mounted_.at("file"));
  }
  ~MountSteps() override { mapping_ = Mapping(); }

  void set_up(bool on_device) {
    client_.must(fmt::format("truncate {}", kSize));
    if (on_device)
      mounted_.device_stores(mapping_, kGranule0, kBefore);
    else
      client_.must(fmt::format("store 0 {} {}", kGranule, static_cast<int>(kBefore)));
  }

  std::future<void> begin(const ProgramStep& step) {
    Client& client = step.is_direct ? direct_ : client_;
    client.begin(step.command);
    return std::async(std::launch::async, [&client, &step] {
      const std::string answer = client.end();
      EXPECT_TRUE(answer.starts_with("ok")) << answer;
      for (std::size_t i = 3; i + 1 < answer.size() && i < 35; i += 2)
        EXPECT_TRUE(answer.substr(i, 2) == test::all(1, kBefore) ||
                    answer.substr(i, 2) == test::all(1, kByDevice))
            << step.command << ": " << answer;
    });
  }
  std::future<void> begin(DeviceStep step) {
    return std::async(std::launch::async, [this, step] {
      if (step == DeviceStep::loads)
        static_cast<void>(mounted_.device_misses(mapping_, kBytes, kBefore));
      else if (step == DeviceStep::stores)
        mounted_.device_stores(mapping_, kBytes, kByDevice);
      else
        mounted_.runtime()
            .launch(Grid::cover(1, 1), StoreOnDemand{}, demand_read_write(mapping_, kBytes), kByDevice)
            .wait();
    });
  }

  /// Both have ended. If `last` is given, it began when the other had ended.
  void check(const ProgramStep& program, DeviceStep device, std::optional<bool> device_is_last) {
    const bool device_stores = device != DeviceStep::loads;
    const bool program_stores = program.leaves != kBefore;
    const std::string seen = client_.bytes("read 4096 16");
    EXPECT_EQ(client_.bytes("load 4096 16"), seen);
    Client fresh;
    fresh.must("open_reading " + mounted_.at("file"));
    EXPECT_EQ(fresh.bytes("read 4096 16"), seen);
    std::array<unsigned char, 16> here{};
    mapping_.read(kBytes.first, std::as_writable_bytes(std::span(here)));
    for (std::size_t i = 0; i < here.size(); ++i) {
      EXPECT_EQ(test::all(1, here[i]), seen.substr(2 * i, 2));
      if (device_stores && program_stores && !device_is_last)
        EXPECT_TRUE(here[i] == program.leaves || here[i] == kByDevice) << int{here[i]};
      else if (device_stores && (!program_stores || *device_is_last))
        EXPECT_EQ(here[i], kByDevice);
      else
        EXPECT_EQ(here[i], program.leaves);
    }
    // Nobody touched what lies before.
    EXPECT_EQ(client_.bytes("read 4080 16"), test::all(16, kBefore));
    EXPECT_EQ(mounted_.device_misses(mapping_, {ByteOffset{0}, ByteCount{4096}}, kBefore), 0u);
  }

  /// How many moments the first comes by that is not disturbed; and that each order by itself is right.
  template <class First, class Second>
  unsigned in_order(const ProgramStep& program, DeviceStep device, bool on_device, First first,
                    Second second) {
    set_up(on_device);
    unsigned moments = 0;
    {
      const Hold counter({.call = Call::any, .when = When::before, .nth = 0});
      begin(first).get();
      moments = counter.count();
    }
    begin(second).get();
    check(program, device, std::is_same_v<Second, DeviceStep>);
    return moments;
  }

  template <class First, class Second>
  void overlap(const ProgramStep& program, DeviceStep device, First first, Second second) {
    for (const bool on_device : {false, true}) {
      const unsigned moments = in_order(program, device, on_device, first, second);
      // After one call is before the next.
      for (unsigned n = 1; n <= moments + 1; n += kStride) {
        const bool is_at_end = n > moments;
        SCOPED_TRACE(fmt::format(
            "{} and device step {}, {} first, stopped at call {} of {}, {} has the bytes", program.command,
            static_cast<int>(device), std::is_same_v<First, DeviceStep> ? "device" : "program", n, moments,
            on_device ? "device" : "program"));
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
        check(program, device, {});
        if (HasFailure()) return;
      }
    }
  }

  static constexpr std::future_status kReady = std::future_status::ready;
  const unsigned kStride = test::scaled(16u) == 16u ? 1 : 5;

  Mounted mounted_{GetParam()};
  Mapping mapping_;
  Client client_;
  Client direct_;
  /// How often the first was stopped.
  unsigned held_ = 0;
};

TEST_P(MountSteps, program_first) {
  for (const ProgramStep& program : kProgramSteps)
    for (const DeviceStep device : kDeviceSteps) {
      overlap(program, device, program, device);
      if (HasFailure()) return;
    }
  EXPECT_GT(held_, test::scaled(160u));
  RecordProperty("stops", static_cast<int>(held_));
}

TEST_P(MountSteps, device_first) {
  for (const ProgramStep& program : kProgramSteps)
    for (const DeviceStep device : kDeviceSteps) {
      overlap(program, device, device, program);
      if (HasFailure()) return;
    }
  EXPECT_GT(held_, test::scaled(160u));
  RecordProperty("stops", static_cast<int>(held_));
}

INSTANTIATE_TEST_SUITE_P(Each, MountSteps, testing::Values(DeviceKind::emulated, DeviceKind::emulated_strict),
                         [](const auto& test) {
                           return test.param == DeviceKind::emulated ? "faulting" : "strict";
                         });

}  // namespace
}  // namespace aprime
