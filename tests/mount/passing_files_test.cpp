// Files that are made, replaced, moved and removed by programs while a device is given them: what the mount
// keeps of a file lives as long as anybody uses it, and no longer.

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
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
  /// Gives the device one file after the other, as long as programs are at work.
  void use_by_device(std::uint64_t seed) {
    stress::Random random(seed);
    while (!programs_are_done_.load()) {
      try {
        const Mapping mapping = mounted_.map(passing_name(random.next()));
        for (std::uint64_t times = random.between(0, 3); times > 0; --times) use(mapping, random);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Errc::cannot_open) << error.what();  // it has just gone
      }
    }
  }

  void use(const Mapping& mapping, stress::Random& random) {
    std::vector<std::uint64_t> before(kPassingWords), now(kPassingWords);
    mapping.read(ByteOffset{0}, std::as_writable_bytes(std::span(before)));
    const Grid grid = Grid::cover(512, 64);
    if (random.one_in(3))
      mounted_.runtime().launch(grid, AddOneToAllOnDemand{}, demand_read_write(mapping)).wait();
    else
      mounted_.runtime().launch(grid, AddOneToAll{}, read_write(mapping)).wait();
    for (std::uint64_t& word : before) ++word;
    if (random.one_in(2)) {
      mapping.read(ByteOffset{0}, std::as_writable_bytes(std::span(now)));
    } else {
      std::ranges::copy(mapping.host<const std::uint64_t>(), now.begin());
    }
    EXPECT_EQ(fault_of(now, before), "");
    if (random.one_in(4)) mapping.sync();
    uses_.fetch_add(1);
  }

  Mounted mounted_{GetParam(), HostAccess::adaptive, ByteCount{1 << 20}};
  std::atomic<bool> programs_are_done_{false};
  std::atomic<unsigned> uses_{0};
};

TEST_P(PassingFiles, are_whole_for_all_who_use_them) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  {
    std::list<ChildProcess> programs;
    for (unsigned i = 0; i < kPrograms; ++i)
      programs.emplace_back(std::vector<std::string>{
          APRIME_PASSING_PROGRAM, mounted_.at(""), std::to_string(seed + i), std::to_string(scaled(3000u))});
    std::jthread one([&] { use_by_device(seed + kPrograms); });
    std::jthread other([&] { use_by_device(seed + kPrograms + 1); });
    for (ChildProcess& program : programs)
      for (std::string line; program.listen(&line);) ADD_FAILURE() << "a program: " << line;
    programs_are_done_.store(true);
  }
  EXPECT_GT(uses_.load(), scaled(50u));
  for (unsigned i = 0; i < kPassingNames; ++i) {
    const std::string content = mounted_.content(passing_name(i));
    std::vector<std::uint64_t> words(content.size() / sizeof(std::uint64_t));
    std::memcpy(words.data(), content.data(), words.size() * sizeof(std::uint64_t));
    const bool is_there = std::filesystem::remove(mounted_.at(passing_name(i)));
    EXPECT_EQ(words.size(), is_there ? kPassingWords : 0);
    EXPECT_EQ(fault_of(words, {}), "");
  }
  // The kernel forgets a removed file a moment later.
  for (int i = 0; i < 1000 && open_files() > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(open_files(), 0) << "of files that nobody has any more";
}

INSTANTIATE_TEST_SUITE_P(Each, PassingFiles,
                         testing::Values(DeviceKind::emulated, DeviceKind::emulated_strict), name_of_kind);

}  // namespace
}  // namespace aprime
