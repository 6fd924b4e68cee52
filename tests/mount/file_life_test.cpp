// Files that begin to be known, or cease to be, while somebody else asks for them.

#include <fmt/format.h>
#include <linux/fuse.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <future>
#include <string>
#include <system_error>
#include <thread>

#include "tests/contract/kernels.hpp"
#include "tests/mount/held_calls.hpp"
#include "tests/mount/mounted.hpp"

namespace aprime {
namespace {

using namespace test;

ByteRange granule(std::uint64_t n) { return bytes(n * kGranule, kGranule); }

class FileLife : public testing::TestWithParam<DeviceKind> {
 protected:
  Mounted mounted_{GetParam()};
  Client first_, second_;
};

// Of a file that no program has asked for yet: the thread that looks it up first waits for the runtime, which
// is making room for another file.
TEST_P(FileLife, who_looks_a_file_up_second_finds_what_the_device_has) {
  if (GetParam() != DeviceKind::emulated) return;  // of the other nothing is asked by ioctl
  mounted_.make("new", std::string(kSize, 'h'));
  mounted_.make("other", std::string(kSize, 'h'));
  for (const std::string directory : {"a", "b"}) {
    // Programs are served one after the other within a directory.
    std::filesystem::create_directory(mounted_.plain(directory));
    std::filesystem::create_hard_link(mounted_.plain("new"), mounted_.plain(directory + "/new"));
  }
  const Mapping mapping = mounted_.map("new");
  mounted_.device_stores(mapping, bytes(0, kSize), 1);
  Hold mapping_other({Call::ioctl, When::before, bytes(0, kSize), Moment::kNoRequest});
  std::future<Mapping> other = std::async(std::launch::async, [&] { return mounted_.map("other"); });
  mapping_other.wait();
  first_.begin("open " + mounted_.at("a/new"));
  second_.begin("open_reading " + mounted_.at("b/new"));
  second_.begin("read 0 10");
  std::future<std::string> opened = std::async(std::launch::async, [&] { return second_.end(); });
  EXPECT_EQ(opened.wait_for(std::chrono::milliseconds(200)), std::future_status::timeout)
      << "before it is known who has the bytes";
  mapping_other.release();
  EXPECT_EQ(opened.get(), "ok");
  EXPECT_EQ(second_.end(), "ok " + all(10, 1));
  EXPECT_EQ(first_.end(), "ok");
}

// The kernel has found no such name, and asks for a file to be created.
TEST_P(FileLife, file_that_is_there_when_it_shall_be_created_is_opened_as_any_other) {
  const auto open_while_it_appears = [&](const std::string& command, const std::string& name) {
    Hold creates({.call = Call::request, .when = When::before, .on_behalf_of = FUSE_CREATE});
    first_.begin(command + " " + mounted_.at(name));
    creates.wait();
    mounted_.make(name, "anothers");
    creates.release();
    return first_.end();
  };
  EXPECT_EQ(open_while_it_appears("open_creating", "file"), "ok");
  EXPECT_EQ(mounted_.content("file"), "") << "it was to be truncated";
  EXPECT_EQ(open_while_it_appears("open_new", "new"), "errno " + std::to_string(EEXIST));
  EXPECT_EQ(mounted_.content("new"), "anothers");
}

TEST_P(FileLife, created_file_whose_name_is_taken_at_once_is_the_one_that_was_created) {
  mounted_.make("other", std::string(kSize, 'o'));
  const Mapping mapping = mounted_.map("other");
  Hold created({.call = Call::openat2, .when = When::after, .on_behalf_of = FUSE_CREATE});
  first_.begin("open_creating " + mounted_.at("file"));
  created.wait();
  std::filesystem::rename(mounted_.plain("other"), mounted_.plain("file"));
  created.release();
  EXPECT_EQ(first_.end(), "ok");
  EXPECT_EQ(first_.ask("size"), "ok 0");
  first_.must("write 0 10 1");
  EXPECT_EQ(first_.bytes("read 0 100"), all(10, 1));
  EXPECT_EQ(mounted_.content("file").substr(0, 20), std::string(20, 'o'));
}

// A recall may be the work of a signal handler, where nothing may be freed or closed.
TEST_P(FileLife, nothing_of_a_file_is_kept_by_a_recall) {
  mounted_.make("recalled", std::string(kSize, 'h'));
  const auto open_files = [] {
    std::ptrdiff_t n = 0;
    for (const auto& descriptor : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      n += std::filesystem::read_symlink(descriptor, gone).string().find("/source/recalled") !=
           std::string::npos;
    }
    return n;
  };
  const Mapping mapping = mounted_.map("recalled");
  const std::ptrdiff_t of_the_runtime = open_files();
  first_.must("open " + mounted_.at("recalled"));
  first_.must("map");
  EXPECT_EQ(first_.bytes("load 0 1"), all(1, 'h'));
  EXPECT_GT(open_files(), of_the_runtime);
  Hold recalls({Call::invalidate, When::before});
  std::future<void> stored =
      std::async(std::launch::async, [&] { mounted_.device_stores(mapping, granule(0), 1); });
  recalls.wait();
  first_.must("close");
  first_.must("unlink " + mounted_.at("recalled"));
  // The kernel forgets a removed file a moment later.
  for (int i = 0; i < 6000 && open_files() > of_the_runtime; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(open_files(), of_the_runtime);
  recalls.release();
  stored.get();
}

// Programs use granules that no device has room for.
TEST_P(FileLife, file_that_has_grown_beyond_its_mappings_ends) {
  constexpr std::uint64_t kLarge = std::uint64_t{3} << 30;
  mounted_.make("growing", std::string(kSize, 'h'));
  Mapping mapping = mounted_.map("growing");
  mounted_.device_stores(mapping, granule(0), 1);
  std::filesystem::resize_file(mounted_.plain("growing"), kLarge);
  first_.must("open " + mounted_.at("growing"));
  first_.must("map");
  EXPECT_EQ(first_.bytes(fmt::format("load {} 10", kLarge - 4096)), all(10, 0));
  mapping.close();
  EXPECT_EQ(first_.bytes("load 0 10"), all(10, 1));
}

// Without a mount.
TEST_P(FileLife, file_that_is_stored_to_again_while_it_goes_home_is_not_forgotten) {
  mounted_.make("apart", std::string(kSize, 'h'));
  Runtime runtime(
      RuntimeOptions{.devices = {{.kind = GetParam(), .memory = ByteCount{1 << 20}, .workers = 2}},
                     .granule = ByteCount{kGranule},
                     .dirty_age_max = std::chrono::milliseconds{0}});
  const auto map = [&] { return runtime.map(mounted_.plain("apart"), Access::read_write); };
  const auto store = [&](const Mapping& m, std::uint64_t n, unsigned char value) {
    runtime.launch(Grid::cover(1, 1), contract::StoreEverywhere{}, read_write(m, granule(n)), value).wait();
  };
  Mapping first = map();
  store(first, 0, 1);
  store(first, 2, 1);
  Hold first_goes({Call::pwrite, When::before, granule(2)});
  std::future<void> gone = std::async(std::launch::async, [&] { first.close(); });
  first_goes.wait();
  Mapping second = map();
  store(second, 0, 2);
  Hold second_goes({Call::pwrite, When::before, granule(0)});
  std::future<void> gone_too = std::async(std::launch::async, [&] { second.close(); });
  second_goes.wait();
  first_goes.release();
  gone.wait_for(std::chrono::milliseconds(200));  // forever, perhaps: the newest bytes are still on their way
  const Mapping third = map();
  std::future<std::byte> seen = std::async(std::launch::async, [&] {
    std::byte byte{};
    third.read(ByteOffset{0}, std::span(&byte, 1));
    return byte;
  });
  seen.wait_for(std::chrono::milliseconds(50));
  second_goes.release();
  EXPECT_EQ(seen.get(), std::byte{2});
  gone.get();
  gone_too.get();
}

INSTANTIATE_TEST_SUITE_P(Each, FileLife, testing::Values(DeviceKind::emulated, DeviceKind::emulated_strict),
                         name_of_kind);

}  // namespace
}  // namespace aprime
