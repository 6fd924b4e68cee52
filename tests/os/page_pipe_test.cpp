#include "host/os/page_pipe.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "host/os/syscalls.hpp"
#include "tests/os/temporary_file.hpp"

namespace aprime::os {
namespace {

constexpr std::size_t kSize = 100 * 4096 + 10;

class Pages : public testing::Test {
 protected:
  ~Pages() override {
    sys::clear_fault_plan();
    ::close(fd_);
  }
  std::vector<std::byte> taken(std::size_t size) const {
    std::vector<std::byte> bytes(size);
    for (std::size_t got = 0; got < size;) {
      const ssize_t n = ::read(pipe_.descriptor(), bytes.data() + got, size - got);
      if (n <= 0) return {};
      got += static_cast<std::size_t>(n);
    }
    return bytes;
  }
  bool is_empty() const {
    std::byte byte{};
    return ::read(pipe_.descriptor(), &byte, 1) < 0 && errno == EAGAIN;
  }
  std::vector<std::byte> content(std::size_t at, std::size_t size) const {
    return {contents_.begin() + static_cast<std::ptrdiff_t>(at),
            contents_.begin() + static_cast<std::ptrdiff_t>(at + size)};
  }

  const std::vector<std::byte> contents_ = test::pattern(kSize);
  test::TemporaryDirectory directory_;
  const int fd_ = ::open(directory_.file("f", contents_).c_str(), O_RDONLY | O_CLOEXEC);
  PagePipe pipe_;
  std::size_t got_ = 0;
};

TEST_F(Pages, are_taken_from_anywhere) {
  for (const std::size_t at : {std::size_t{0}, std::size_t{8192}, std::size_t{5000}}) {
    ASSERT_TRUE(pipe_.fill(fd_, static_cast<off_t>(at), PagePipe::kBytesMax, &got_));
    ASSERT_EQ(got_, PagePipe::kBytesMax);
    EXPECT_EQ(taken(got_), content(at, got_));
    EXPECT_TRUE(is_empty());
  }
}

TEST_F(Pages, end_where_the_file_ends) {
  ASSERT_TRUE(pipe_.fill(fd_, 98 * 4096, 32 * 4096, &got_));
  EXPECT_EQ(got_, 2 * 4096u + 10);
  EXPECT_EQ(taken(got_), content(98 * 4096, got_));
  ASSERT_TRUE(pipe_.fill(fd_, kSize, 4096, &got_));
  EXPECT_EQ(got_, 0u);
}

TEST_F(Pages, are_not_some_of_them_where_one_cannot_be_had) {
  for (const std::uint64_t nth : {1, 2}) {
    // What the first call leaves for another: what does not fit in the pipe is told likewise.
    sys::set_fault_plan({.call = sys::Call::splice, .nth = nth, .times = 0, .error = EIO});
    EXPECT_FALSE(pipe_.fill(fd_, 99 * 4096, 32 * 4096, &got_));
    sys::clear_fault_plan();
    ASSERT_TRUE(pipe_.fill(fd_, 0, 8192, &got_));
    EXPECT_EQ(taken(8192), content(0, 8192));
    EXPECT_TRUE(is_empty()) << "nothing is left from before";
  }
}

TEST_F(Pages, that_are_not_taken_are_forgotten) {
  ASSERT_TRUE(pipe_.fill(fd_, 0, 8192, &got_));
  pipe_.clear();
  ASSERT_TRUE(pipe_.fill(fd_, 4096, 4096, &got_));
  EXPECT_EQ(taken(4096), content(4096, 4096));
  pipe_.clear();
  EXPECT_TRUE(is_empty());
}

TEST_F(Pages, are_refused_where_they_would_not_fit) {
  EXPECT_FALSE(pipe_.fill(fd_, 0, PagePipe::kBytesMax + 1, &got_));
}

TEST_F(Pages, outlast_interruptions) {
  sys::set_fault_plan({.call = sys::Call::splice, .nth = 1, .times = 3, .error = EINTR});
  ASSERT_TRUE(pipe_.fill(fd_, 0, 8192, &got_));
  EXPECT_EQ(taken(8192), content(0, 8192));
}

}  // namespace
}  // namespace aprime::os
