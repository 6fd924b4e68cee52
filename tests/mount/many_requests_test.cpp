// Many requests at once, each of which waits for something.

#include <fmt/format.h>
#include <linux/fuse.h>

#include <filesystem>
#include <iterator>
#include <list>
#include <string>
#include <vector>

#include "tests/mount/held_calls.hpp"
#include "tests/mount/mounted.hpp"

namespace aprime {
namespace {

using namespace test;

constexpr std::uint64_t kPage = 4096;

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator all_of_them("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all_of_them), end(all_of_them)));
}

class ManyRequests : public testing::TestWithParam<DeviceKind> {
 protected:
  ManyRequests() {
    mounted_.make("file", std::string(kSize, 'h'));
    mapping_ = mounted_.map("file");
  }
  ~ManyRequests() override { mapping_ = Mapping(); }

  Mounted mounted_{GetParam()};
  Mapping mapping_;
};

TEST_P(ManyRequests, requests_that_wait_keep_no_descriptors) {
  constexpr std::uint64_t kReaders = kSize / kPage;
  std::vector<Client> readers(kReaders);
  std::list<Hold> held;
  for (Client& reader : readers) {
    reader.must("open " + mounted_.at("file"));
    held.emplace_back(Moment{Call::request, When::before, bytes(kPage * held.size(), kPage), FUSE_READ});
  }
  const std::size_t before = open_descriptors();
  std::uint64_t n = 0;
  for (Client& reader : readers) reader.begin(fmt::format("read {} 10", kPage * n++));
  for (const Hold& hold : held) hold.wait();
  EXPECT_LT(open_descriptors(), before + kReaders / 2) << "opening files must go on";
  held.clear();
  for (Client& reader : readers) EXPECT_EQ(reader.end(), "ok " + all(10, 'h'));
}

TEST_P(ManyRequests, readers_find_that_a_file_has_grown_by_its_plain_path) {
  // Beyond what its tables have room for, several times.
  std::vector<Client> readers(8);
  for (Client& reader : readers) reader.must("open " + mounted_.at("file"));
  for (std::uint64_t size = std::uint64_t{3} << 29; size <= std::uint64_t{3} << 33; size *= 2) {
    std::filesystem::resize_file(mounted_.plain("file"), size);
    std::list<Hold> held;
    for (std::size_t i = 0; i < readers.size(); ++i) {
      const std::uint64_t at = size - kPage * (i + 1);
      held.emplace_back(Moment{Call::request, When::before, bytes(at, kPage), FUSE_READ});
      readers[i].begin(fmt::format("read {} 10", at));
    }
    for (const Hold& hold : held) hold.wait();
    held.clear();
    for (Client& reader : readers) EXPECT_EQ(reader.end(), "ok " + all(10, 0)) << size;
  }
}

INSTANTIATE_TEST_SUITE_P(Each, ManyRequests,
                         testing::Values(DeviceKind::emulated, DeviceKind::emulated_strict), name_of_kind);

}  // namespace
}  // namespace aprime
