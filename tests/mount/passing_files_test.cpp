// Files that are made, replaced, moved and removed by programs while a device is given them: what the mount
// keeps of a file lives as long as anybody uses it, and no longer.

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <list>
#include <random>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "aprime/device_span.hpp"
#include "host/os/syscalls.hpp"
#include "host/os/userfault.hpp"
#include "tests/contract/kernels.hpp"
#include "tests/mount/mounted.hpp"
#include "tests/mount/passing_files.hpp"
#include "tests/stress/random.hpp"
#include "tests/test_scale.hpp"

namespace aprime {
namespace {

using namespace test;

constexpr unsigned kPrograms = 4;

struct AddOneToAll {
  APRIME_DEVICE void operator()(LeasedSpan<std::uint64_t> words) const {
    for (std::size_t i = contract::first_index(); i < words.size(); i += contract::index_step())
      words[i] += 1;
  }
};

/// How many descriptors of passing files this process has.
std::ptrdiff_t open_files() {
  const std::filesystem::directory_iterator descriptors("/proc/self/fd");
  return std::count_if(begin(descriptors), end(descriptors), [](const auto& descriptor) {
    std::error_code gone;
    return std::filesystem::read_symlink(descriptor, gone).string().find("/passing") != std::string::npos;
  });
}

struct AddOneToAllOnDemand {
  APRIME_DEVICE void operator()(device_span<std::uint64_t> words) const {
    for (std::size_t i = contract::first_index(); i < words.size(); i += contract::index_step())
      words.atomic_add(i, std::uint64_t{1});
  }
};

class PassingFiles : public testing::TestWithParam<DeviceKind> {
 protected:
  ~PassingFiles() override { os::sys::clear_fault_plan(); }

  /// Programs and threads that use the device at work, until each program has done its operations. If they
  /// are patient, everything may fail.
  void work(unsigned operations, bool are_patient) {
    std::list<ChildProcess> programs;
    for (unsigned i = 0; i < kPrograms; ++i) {
      std::vector<std::string> command{APRIME_PASSING_PROGRAM, mounted_.at(""),
                                       std::to_string(random_.next()), std::to_string(operations)};
      if (are_patient) command.emplace_back("patient");
      programs.emplace_back(std::move(command));
    }
    programs_are_done_.store(false);
    std::jthread one([&, seed = random_.next()] { use_by_device(seed, are_patient); });
    std::jthread other([&, seed = random_.next()] { use_by_device(seed, are_patient); });
    for (ChildProcess& program : programs) {
      for (std::string line; program.listen(&line);) ADD_FAILURE() << "a program: " << line;
      // Who dies of a signal says nothing.
      EXPECT_EQ(program.end(), 0) << "the status of a program";
    }
    programs_are_done_.store(true);
  }

  /// What is left is whole, and when it is removed nothing has it any more.
  void expect_order() {
    for (unsigned i = 0; i < kPassingNames; ++i) {
      const std::string content = mounted_.content(passing_name(i));
      std::vector<std::uint64_t> words(content.size() / sizeof(std::uint64_t));
      std::ranges::copy(std::as_bytes(std::span(content)).first(words.size() * sizeof(std::uint64_t)),
                        std::as_writable_bytes(std::span(words)).begin());
      const bool is_there = std::filesystem::exists(mounted_.at(passing_name(i)));
      EXPECT_EQ(words.size(), is_there ? kPassingWords : 0);
      EXPECT_EQ(fault_of(words, {}), "");
    }
    for (const auto& file : std::filesystem::directory_iterator(mounted_.at("")))
      std::filesystem::remove(file);
    // The kernel forgets a removed file a moment later.
    for (int i = 0; i < 6000 && open_files() > 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_EQ(open_files(), 0) << "of files that nobody has any more";
  }

  Mounted mounted_{GetParam(), HostAccess::adaptive, ByteCount{1 << 20}};
  std::atomic<unsigned> uses_{0};
  stress::Random random_{[] {
    const std::uint64_t seed = std::random_device{}();
    testing::Test::RecordProperty("seed", std::to_string(seed));
    return seed;
  }()};

 private:
  void use_by_device(std::uint64_t seed, bool is_patient) {
    stress::Random random(seed);
    while (!programs_are_done_.load()) {
      try {
        const Mapping mapping = mounted_.map(passing_name(random.next()));
        for (std::uint64_t times = random.between(0, 3); times > 0; --times) use(mapping, random, is_patient);
      } catch (const Error& error) {
        // It has just gone.
        EXPECT_TRUE(is_patient || error.code() == Errc::cannot_open) << error.what();
      }
    }
  }

  void use(const Mapping& mapping, stress::Random& random, bool is_patient) {
    std::vector<std::uint64_t> before(kPassingWords), now(kPassingWords);
    mapping.read(ByteOffset{0}, std::as_writable_bytes(std::span(before)));
    const Grid grid = Grid::cover(512, 64);
    if (random.one_in(3))
      mounted_.runtime().launch(grid, AddOneToAllOnDemand{}, demand_read_write(mapping)).wait();
    else
      mounted_.runtime().launch(grid, AddOneToAll{}, read_write(mapping)).wait();
    for (std::uint64_t& word : before) ++word;
    if (is_patient || random.one_in(2)) {
      mapping.read(ByteOffset{0}, std::as_writable_bytes(std::span(now)));
    } else {
      std::ranges::copy(mapping.host<const std::uint64_t>(), now.begin());
    }
    EXPECT_EQ(fault_of(now, is_patient ? std::span<std::uint64_t>() : std::span(before)), "");
    if (random.one_in(4)) mapping.sync();
    uses_.fetch_add(1);
  }

  std::atomic<bool> programs_are_done_{false};
};

TEST_P(PassingFiles, are_whole_for_all_who_use_them) {
  work(scaled(3000u), false);
  EXPECT_GT(uses_.load(), scaled(50u));
  expect_order();
}

TEST_P(PassingFiles, are_whole_when_the_mount_goes_while_they_are_used) {
  for (int i = 0; i < scaled(32); ++i) {
    std::jthread ends([&, after = std::chrono::milliseconds(random_.below(200))] {
      std::this_thread::sleep_for(after);
      mounted_.mount().unmount();
    });
    work(scaled(200u), true);
    ends.join();
    mounted_.mount_again();
  }
  work(scaled(200u), false);
  expect_order();
}

TEST_P(PassingFiles, are_whole_though_calls_fail_now_and_then) {
  using os::sys::Call;
  struct Failure {
    Call call;
    int error;
    std::uint64_t every = 17;
  };
  constexpr std::uint64_t kRare = 3;
  for (const auto& [call, error, every] :
       {Failure{Call::open, EMFILE}, Failure{Call::openat2, EMFILE}, Failure{Call::fstat, EIO},
        Failure{Call::statx, EIO, kRare}, Failure{Call::fcntl, EPERM}, Failure{Call::pread, EIO},
        Failure{Call::pwrite, EIO}, Failure{Call::pwrite, ENOSPC}, Failure{Call::splice, EIO},
        Failure{Call::fsync, EIO, kRare}, Failure{Call::fdatasync, EIO}, Failure{Call::mmap, ENOMEM},
        Failure{Call::mprotect, ENOMEM}, Failure{Call::madvise, EAGAIN}, Failure{Call::ioctl, EAGAIN}}) {
    // Made of the memory that only this kind has, and only of userfaultfd.
    const bool is_made = call != Call::ioctl || (GetParam() == DeviceKind::emulated &&
                                                 os::UserfaultMemory::why_unavailable().empty());
    if (!is_made) continue;
    SCOPED_TRACE(fmt::format("{} fails with {}", os::sys::name_of(call), std::strerror(error)));
    os::sys::set_fault_plan({.call = call, .nth = every / 3, .times = 1, .error = error, .every = every});
    work(scaled(200u), true);
    os::sys::clear_fault_plan();
    // A short run may do without some of them.
    if (scaled(200u) == 200) {
      EXPECT_GT(os::sys::faults_injected(), 0u);
    }
    expect_order();  // and nobody is left who might be told of a failure by and by
    work(scaled(50u), false);
    expect_order();
  }
}

INSTANTIATE_TEST_SUITE_P(Each, PassingFiles,
                         testing::Values(DeviceKind::emulated, DeviceKind::emulated_strict), name_of_kind);

}  // namespace
}  // namespace aprime
