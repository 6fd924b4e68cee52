// Every system call of the library fails, at each place where it is made, and nothing is lost or left broken
// by it.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>

#include "host/os/syscalls.hpp"
#include "tests/contract/demand_kernels.hpp"
#include "tests/fault/guarded_access.hpp"
#include "tests/fault/scenario.hpp"
#include "tests/os/temporary_file.hpp"
#include "tests/test_scale.hpp"

namespace aprime::fault {
namespace {

using os::sys::Call;
using os::sys::FaultPlan;

/// How a call can fail, and for how long: once, for a while, for ever (0).
struct Failure {
  int error;
  std::vector<std::uint64_t> times;
};

const std::vector<std::uint64_t> kOnceOrEver{1, 0};
/// What the library must wait out: the caller of an interrupted call tries again, and a right that has to be
/// taken away cannot be left (see os::ProtectedRange), so these may not go on for ever.
const std::vector<std::uint64_t> kPassing{1, 6};

std::vector<Failure> failures_of(Call call) {
  switch (call) {
    case Call::open:
      return {{EMFILE, kOnceOrEver}, {EACCES, kOnceOrEver}, {EIO, kOnceOrEver}, {ENOMEM, kOnceOrEver}};
    case Call::fstat: return {{EIO, kOnceOrEver}, {ENOMEM, kOnceOrEver}};
    case Call::statx: return {{ENOSYS, kOnceOrEver}, {EIO, kOnceOrEver}};
    case Call::fcntl: return {{EPERM, kOnceOrEver}};
    case Call::pread: return {{EIO, kOnceOrEver}, {ENOMEM, kOnceOrEver}, {EINTR, kPassing}};
    case Call::pwrite:
      return {{ENOSPC, kOnceOrEver},
              {EIO, kOnceOrEver},
              {EDQUOT, kOnceOrEver},
              {ENOMEM, kOnceOrEver},
              {EINTR, kPassing}};
    case Call::fdatasync:
      return {{EIO, kOnceOrEver}, {ENOSPC, kOnceOrEver}, {EDQUOT, kOnceOrEver}, {EINTR, kPassing}};
    case Call::sync_file_range: return {{EIO, kOnceOrEver}, {ENOSPC, kOnceOrEver}};
    case Call::ftruncate:
      return {{EIO, kOnceOrEver}, {ENOSPC, kOnceOrEver}, {EPERM, kOnceOrEver}, {EINTR, kPassing}};
    case Call::fallocate:
      return {{EOPNOTSUPP, kOnceOrEver}, {ENOSPC, kOnceOrEver}, {EIO, kOnceOrEver}, {EINTR, kPassing}};
    case Call::fadvise: return {{EINVAL, kOnceOrEver}};
    case Call::mmap: return {{ENOMEM, kOnceOrEver}, {ENODEV, kOnceOrEver}, {EAGAIN, kOnceOrEver}};
    case Call::mprotect: return {{ENOMEM, kPassing}};
    case Call::madvise: return {{ENOMEM, kOnceOrEver}, {EAGAIN, kPassing}};
    case Call::ioctl: return {{ENOMEM, kPassing}, {EAGAIN, kPassing}};
    case Call::userfaultfd: return {{EPERM, kOnceOrEver}, {ENOSYS, kOnceOrEver}, {EMFILE, kOnceOrEver}};
    case Call::memfd_create: return {{EMFILE, kOnceOrEver}, {ENOMEM, kOnceOrEver}};
    case Call::sigaction: return {{EINVAL, {1}}};
    case Call::openat2:  // the mount's, which no scenario has
    case Call::pwritev2:
    case Call::splice:
    case Call::fsync:
    case Call::count_: break;
  }
  return {};
}

/// Scenarios by name; the flusher is one of the actors that a call may fail for.
struct Cast {
  const char* name;
  Personality personality;
  bool with_flusher;
};
const std::array<Cast, 4> kCasts{{
    {"emulated", {"emulated", DeviceKind::emulated, false}, false},
    {"without_userfaultfd", {"without_userfaultfd", DeviceKind::emulated, true}, false},
    {"strict", {"strict", DeviceKind::emulated_strict, false}, false},
    {"with_flusher", {"emulated", DeviceKind::emulated, false}, true},
}};

bool is_ever_made(Call call, const Cast& cast) {
  const bool uses_userfaultfd =
      cast.personality.kind == DeviceKind::emulated && !cast.personality.without_userfaultfd;
  switch (call) {
    case Call::ioctl:
    case Call::userfaultfd: return uses_userfaultfd;
    case Call::memfd_create: return !uses_userfaultfd;
    case Call::sync_file_range: return cast.with_flusher;
    case Call::openat2:
    case Call::pwritev2:
    case Call::splice:
    case Call::fsync: return false;  // the mount's, see failures_of
    default: return true;
  }
}

std::string what_fails;

void on_alarm(int) {
  constexpr char kText[] = "\nthe library hangs: ";
  static_cast<void>(!::write(STDERR_FILENO, kText, sizeof kText - 1));
  static_cast<void>(!::write(STDERR_FILENO, what_fails.data(), what_fails.size()));
  std::abort();
}

std::size_t open_files() {
  const std::filesystem::directory_iterator entries("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

/// Areas that belong to one of the files, or to device memory.
std::size_t mapped_areas(const std::string& directory) {
  std::ifstream maps("/proc/self/maps");
  std::size_t found = 0;
  for (std::string line; std::getline(maps, line);)
    found += line.find(directory) != std::string::npos || line.find("aprime-device") != std::string::npos;
  return found;
}

struct Result {
  std::uint64_t made = 0;
  std::uint64_t hit = 0;
  unsigned failed_steps = 0;
};

/// One run of the scenario with one failure, and everything that must hold afterwards.
Result play(const Cast& cast, const FaultPlan& plan, unsigned variant) {
  what_fails =
      fmt::format("{}, {} number {}, {} times, errno {} ({})\n", cast.name, os::sys::name_of(plan.call),
                  plan.nth, plan.times, plan.error, std::strerror(plan.error));
  const std::size_t files_before = open_files();
  const test::TemporaryDirectory directory;
  ::alarm(120);
  Result result;
  {
    constexpr std::array kAccess = {HostAccess::migrate, HostAccess::bounce, HostAccess::adaptive};
    Scenario scenario({.personality = cast.personality,
                       .with_flusher = cast.with_flusher,
                       .close_early = variant % 2 == 1,
                       .host_access = kAccess[variant % kAccess.size()]},
                      directory.path());
    os::sys::set_fault_plan(plan);
    scenario.run(plan);
    os::sys::clear_fault_plan();
    if (plan.call != Call::count_) result.made = os::sys::calls_made(plan.call);
    result.hit = os::sys::faults_injected();
    result.failed_steps = scenario.failed_steps();
    scenario.recover();
    for (const std::string& defect : scenario.defects()) ADD_FAILURE() << what_fails << "  " << defect;
  }
  ::alarm(0);
  EXPECT_EQ(mapped_areas(directory.path()), 0U) << what_fails << "  leaves mappings behind";
  EXPECT_EQ(open_files(), files_before) << what_fails << "  leaves descriptors open";
  std::filesystem::remove(directory.path() + "/big");
  std::filesystem::remove(directory.path() + "/small");
  return result;
}

std::uint64_t seed_of_run() {
  const char* given = std::getenv("APRIME_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
}

/// Places to fail at: all of them, or the first and a sample. How often some calls are made is not the same
/// each time.
std::vector<std::uint64_t> places(std::uint64_t calls, std::size_t most, std::mt19937_64& random) {
  std::vector<std::uint64_t> all(calls);
  std::iota(all.begin(), all.end(), 1);
  std::vector<std::uint64_t> chosen{1};
  std::sample(all.begin() + 1, all.end(), std::back_inserter(chosen), most - 1, random);
  return chosen;
}

class Injection : public testing::TestWithParam<std::tuple<Cast, Call>> {
 protected:
  static void SetUpTestSuite() {
    catch_bus_errors();
    std::signal(SIGALRM, &on_alarm);
  }
};

TEST_P(Injection, FailsCleanlyAndLosesNothing) {
  const auto& [cast, call] = GetParam();
  play(cast, {}, 0);  // what is only done once in a process is done now
  play(cast, {}, 1);
  os::sys::set_fault_plan({});
  play(cast, {}, 2);
  const std::uint64_t calls = os::sys::calls_made(call);
  if (!is_ever_made(call, cast)) {
    EXPECT_EQ(calls, 0U);
    return;
  }
  ASSERT_GT(calls, 0U) << os::sys::name_of(call) << " is never made";

  const std::uint64_t seed = seed_of_run();
  SCOPED_TRACE(fmt::format("APRIME_TEST_SEED={}", seed));
  std::mt19937_64 random(seed);
  const std::vector<Failure> failures = failures_of(call);
  std::uint64_t hits = 0;
  unsigned variant = 0;
  for (const Failure& failure : failures) {
    const std::size_t most = std::max<std::size_t>(1, test::scaled<std::size_t>(48) / failures.size());
    for (const std::uint64_t times : failure.times)
      for (const std::uint64_t nth : places(calls, most, random)) {
        hits += play(cast, {.call = call, .nth = nth, .times = times, .error = failure.error}, variant++).hit;
        if (HasFailure()) return;
      }
  }
  EXPECT_GT(hits, 0U) << "nothing failed";
}

std::vector<Call> injected_calls() {
  std::vector<Call> calls;
  for (unsigned c = 0; c < static_cast<unsigned>(Call::count_); ++c)
    // Made once in the life of a process, hence a test of its own.
    if (static_cast<Call>(c) != Call::sigaction) calls.push_back(static_cast<Call>(c));
  return calls;
}

INSTANTIATE_TEST_SUITE_P(every_call, Injection,
                         testing::Combine(testing::ValuesIn(kCasts), testing::ValuesIn(injected_calls())),
                         [](const auto& chosen) {
                           return fmt::format("{}_{}", std::get<0>(chosen.param).name,
                                              os::sys::name_of(std::get<1>(chosen.param)));
                         });

/// A fault brings along what the kernel is likely to want next. Nobody has asked for that yet.
TEST(InjectionOfPread, ANeighbourThatCannotBeReadStopsNoKernel) {
  for (const std::uint64_t granule : {std::uint64_t{16} << 10, std::uint64_t{128} << 10}) {
    for (const std::uint64_t nth : {3U, 4U, 5U}) {
      contract::World world(kCasts[2].personality,
                            {.granule = ByteCount{granule}, .device_memory = ByteCount{64 * granule}});
      const Mapping m = world.map_new(contract::constant(40 * granule, 1));
      os::sys::set_fault_plan({.call = Call::pread, .nth = nth, .times = 1, .error = EIO});
      const DeviceFaultStatus status =
          world.runtime().launch({{1}, {1}}, contract::SumByIterator{}, demand_read_write(m)).status();
      os::sys::clear_fault_plan();
      EXPECT_EQ(status.code, Errc::ok) << status.message << ", granule " << granule << ", call " << nth;
      EXPECT_EQ(os::sys::faults_injected(), 1U);
    }
  }
}

/// Exits with 0 if a process whose fault handlers cannot be installed is told so, and can try again.
int run_without_handlers(unsigned nth) {
  test::TemporaryDirectory directory;
  const std::string path = directory.sparse("f", 1 << 20);
  os::sys::set_fault_plan({.call = Call::sigaction, .nth = nth, .times = 1, .error = EINVAL});
  const auto use = [&] {
    Runtime runtime;
    const Mapping m = runtime.map(path, Access::read_write);
    m.host<std::byte>()[0] = std::byte{1};
    m.prefetch({ByteOffset{0}, m.size_bytes()}, 0, Right::read_write);
    m.host<std::byte>()[1] = std::byte{2};
    m.sync();
  };
  try {
    use();
    return 1;
  } catch (const Error& e) {
    if (e.code() != Errc::resources || e.system_error() != EINVAL) return 2;
  }
  os::sys::clear_fault_plan();
  use();
  return contract::plain_read(path, 0, 2) == Bytes{std::byte{1}, std::byte{2}} ? 0 : 3;
}

TEST(InjectionOfSigaction, IsReportedAndCanBeTriedAgain) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a new process: none has asked for handlers yet
  for (const unsigned nth : {1U, 2U})
    EXPECT_EXIT(std::_Exit(run_without_handlers(nth)), testing::ExitedWithCode(0), "")
        << "call number " << nth;
}

}  // namespace
}  // namespace aprime::fault
