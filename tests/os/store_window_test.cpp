// Writing to a file by stores: the same bytes as by write(2), and no SIGBUS.

#include "host/os/store_window.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

#include "host/os/file.hpp"
#include "host/os/syscalls.hpp"
#include "tests/os/temporary_file.hpp"

namespace aprime::os {
namespace {

using sys::Call;

constexpr std::size_t kSize = (std::size_t{1} << 20) + 100;
constexpr std::size_t kPart = std::size_t{512} << 10;

class Stores : public testing::Test {
 protected:
  ~Stores() override { sys::clear_fault_plan(); }

  std::vector<std::byte> content() {
    std::vector<std::byte> bytes(static_cast<std::size_t>(file_.size().size.value));
    EXPECT_TRUE(file_.read(ByteOffset{0}, bytes).is_ok());
    return bytes;
  }
  /// What is to be there afterwards, and how many calls of pwrite it took.
  std::uint64_t store(std::uint64_t at, const std::vector<std::byte>& bytes) {
    for (std::size_t i = 0; i < bytes.size() && at + i < expected_.size(); ++i) expected_[at + i] = bytes[i];
    sys::set_fault_plan({});
    EXPECT_TRUE(file_.store(ByteOffset{at}, bytes).is_ok());
    sys::clear_fault_plan();
    return sys::calls_made(Call::pwrite);
  }
  void forget_pages() const {
    const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_EQ(::fsync(fd), 0);
    EXPECT_EQ(::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    ::close(fd);
  }

  test::TemporaryDirectory directory_;
  std::vector<std::byte> expected_ = test::pattern(kSize);
  const std::string path_ = directory_.file("f", expected_);
  File file_ = File::open(path_, Access::read_write);
};

TEST_F(Stores, reach_the_file_without_a_call) {
  EXPECT_EQ(store(4096, test::pattern(kPart, 3)), 0u);
  EXPECT_EQ(store(100, test::pattern(kPart - 7, 4)), 0u);
  EXPECT_EQ(content(), expected_);
}

TEST_F(Stores, end_where_the_file_ends) {
  EXPECT_EQ(store(kPart, test::pattern(2 * kPart, 5)), 0u);
  EXPECT_EQ(store(kSize + 1, test::pattern(kPart, 6)), 0u) << "nothing of it is in the file";
  EXPECT_EQ(content(), expected_);
  ASSERT_TRUE(file_.truncate(ByteCount{2 * kSize}).is_ok());
  expected_.resize(2 * kSize);
  EXPECT_EQ(content(), expected_) << "nothing was stored behind the end";
}

TEST_F(Stores, are_written_where_the_page_cache_has_nothing) {
  forget_pages();
  EXPECT_EQ(store(0, test::pattern(kPart, 3)), 1u);
  EXPECT_EQ(store(0, test::pattern(kPart, 4)), 0u) << "it has now";
  ASSERT_TRUE(file_.punch({ByteOffset{0}, ByteCount{kPart}}).is_ok());
  EXPECT_EQ(store(0, test::pattern(kPart, 5)), 1u);
  EXPECT_EQ(content(), expected_);
}

TEST_F(Stores, are_written_where_they_are_few_or_the_file_cannot_be_mapped) {
  EXPECT_EQ(store(0, test::pattern(4096, 3)), 1u);
  sys::set_fault_plan({.call = Call::mmap, .nth = 1, .times = 0, .error = ENODEV});
  EXPECT_TRUE(file_.store(ByteOffset{0}, test::pattern(kPart, 9)).is_ok());
  sys::clear_fault_plan();
  EXPECT_EQ(store(0, test::pattern(kPart, 4)), 1u) << "it is not tried again";
  EXPECT_EQ(content(), expected_);
}

TEST_F(Stores, follow_a_file_that_grows) {
  EXPECT_EQ(store(0, test::pattern(kPart, 3)), 0u);
  ASSERT_TRUE(file_.truncate(ByteCount{8 * kSize}).is_ok());
  expected_.resize(8 * kSize);
  EXPECT_EQ(store(6 * kSize, test::pattern(kPart, 4)), 1u) << "a hole";
  EXPECT_EQ(store(6 * kSize, test::pattern(kPart, 5)), 0u);
  EXPECT_EQ(store(0, test::pattern(kPart, 6)), 0u);
  EXPECT_EQ(content(), expected_);
}

TEST_F(Stores, are_refused_on_a_file_that_is_open_for_reading) {
  File reading = File::open(path_, Access::read);
  EXPECT_EQ(reading.store(ByteOffset{0}, test::pattern(kPart)).code, Errc::access_denied);
  EXPECT_EQ(content(), expected_);
}

/// What a failed fdatasync leaves clean; that it comes to the disk is for the tests with a disk.
TEST_F(Stores, that_dirty_pages_again_change_no_byte) {
  const auto calls = [&](Call call) {
    EXPECT_TRUE(file_.dirty_again({ByteOffset{0}, ByteCount{2 * kSize}}).is_ok());
    return sys::calls_made(call);
  };
  sys::set_fault_plan({});
  EXPECT_EQ(calls(Call::pwrite), 0u);
  sys::set_fault_plan({.call = Call::mmap, .nth = 1, .times = 0, .error = ENODEV});
  EXPECT_GT(calls(Call::pwrite), 0u) << "a file that cannot be mapped";
  sys::set_fault_plan({.call = Call::mmap, .nth = 1, .times = 1, .error = ENOMEM});
  EXPECT_EQ(file_.dirty_again({ByteOffset{0}, ByteCount{kSize}}).code, Errc::resources);
  sys::clear_fault_plan();
  EXPECT_EQ(content(), expected_);
}

/// They take nothing from others, who store to the same bytes, write them, and write them directly.
TEST_F(Stores, that_dirty_pages_again_lose_nobodys_bytes) {
  const Mapped view = file_.map_shared({ByteOffset{0}, ByteCount{4096}}, Access::read_write);
  const Mapped direct = Mapped::anonymous(4096);
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) EXPECT_TRUE(file_.dirty_again({ByteOffset{0}, ByteCount{kSize}}).is_ok());
  });
  for (unsigned round = 1; round <= 2000; ++round) {
    const auto value = std::byte{static_cast<unsigned char>(round)};
    *static_cast<volatile std::byte*>(view.data()) = value;
    std::memset(direct.data(), static_cast<int>(value), 4096);
    EXPECT_TRUE(file_.write(ByteOffset{8192}, direct.bytes()).is_ok());
    EXPECT_TRUE(file_.write_direct(ByteOffset{16384}, direct.bytes()).status.is_ok());
    std::vector<std::byte> seen(20480);
    EXPECT_TRUE(file_.read(ByteOffset{0}, seen).is_ok());
    for (const std::size_t at : {0, 8192, 16384}) EXPECT_EQ(seen[at], value) << at;
  }
  stop = true;
  other.join();
}

TEST_F(Stores, of_several_threads_lie_side_by_side) {
  constexpr unsigned kThreads = 4, kRounds = 20, kEach = 256 << 10;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (unsigned round = 0; round < kRounds; ++round)
        EXPECT_TRUE(file_.store(ByteOffset{t * kEach}, test::pattern(kEach, round + t)).is_ok());
    });
  for (std::thread& thread : threads) thread.join();
  for (unsigned t = 0; t < kThreads; ++t) store(t * kEach, test::pattern(kEach, kRounds - 1 + t));
  EXPECT_EQ(content(), expected_);
}

/// Between the look at the page cache and the store.
TEST_F(Stores, that_the_kernel_refuses_are_no_signal) {
  StoreWindow window(file_.map_shared({ByteOffset{0}, ByteCount{kSize}}, Access::read_write));
  EXPECT_TRUE(window.is_resident(0, kSize));
  EXPECT_TRUE(window.store(0, test::pattern(kPart, 3)));
  ASSERT_EQ(::truncate(path_.c_str(), 4096 * 3 + 1), 0);
  EXPECT_FALSE(window.is_resident(0, kSize));
  EXPECT_FALSE(window.store(0, test::pattern(kPart, 4)));
  EXPECT_FALSE(window.store(4096 * 10, test::pattern(1, 4)));
  EXPECT_TRUE(window.store(0, test::pattern(4096 * 3, 5)));
  expected_ = test::pattern(4096 * 3, 5);
  expected_.push_back(test::pattern(kPart, 4)[4096 * 3]);
  EXPECT_EQ(content(), expected_);
  ASSERT_EQ(::truncate(path_.c_str(), static_cast<off_t>(kSize)), 0);
  EXPECT_TRUE(window.store(0, test::pattern(kSize, 6))) << "as good as new";
  expected_ = test::pattern(kSize, 6);
  EXPECT_EQ(content(), expected_);
}

/// The stores of others are not ours to answer for.
TEST(StoreWindowDeathTest, stray_stores_to_it_are_bus_errors) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        ::signal(SIGBUS, SIG_DFL);  // a sanitizer's
        test::TemporaryDirectory directory;
        File file = File::open(directory.file("f", test::pattern(100)), Access::read_write);
        Mapped memory = file.map_shared({ByteOffset{0}, ByteCount{2 * 4096}}, Access::read_write);
        volatile std::byte* const stray = memory.data() + 4096;
        const StoreWindow window(std::move(memory));
        std::filesystem::remove_all(directory.path());  // no destructor will
        *stray = std::byte{1};
      },
      testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace aprime::os
