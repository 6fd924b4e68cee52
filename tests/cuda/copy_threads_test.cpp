// The threads that copy for a CUDA device, alone. Over a stand-in for the CUDA runtime.

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <span>
#include <thread>

#include "kernels/cuda/copy_threads.hpp"

namespace aprime::cuda {
namespace {

using namespace std::chrono_literals;

/// Reads as the same byte everywhere.
struct Home final : device::HomePort {
  explicit Home(int v) : value(v) {}
  Status read(ByteOffset at, std::span<std::byte> into) noexcept override {
    if (at == ByteOffset{0}) at_first_read();
    std::memset(into.data(), value, into.size());
    return {};
  }
  Status write(ByteOffset, std::span<const std::byte>) noexcept override { return {}; }
  std::span<const std::byte> alias() noexcept override { return {}; }

  const int value;
  std::function<void()> at_first_read = [] {};
};

class CopyThreadsTest : public testing::Test {
 protected:
  static constexpr std::size_t kSize = std::size_t{64} << 20;

  CopyThreadsTest() {
    void* memory = nullptr;
    if (cudaMalloc(&memory, 2 * kSize) == cudaSuccess) memory_ = static_cast<std::byte*>(memory);
  }
  ~CopyThreadsTest() override { static_cast<void>(cudaFree(memory_)); }

  /// Whether the only thread begins a second job with the last pieces of the first one, of `size` bytes, on
  /// their way: then that one does not end before the second one's first piece is read, which takes
  /// `patience`, or as long as the first one needs.
  bool goes_on(std::size_t size, std::chrono::milliseconds patience) {
    CopyThreads threads(0, 1);
    std::atomic<bool> first_is_read{false};
    std::atomic<bool> second_is_asked_for{false};
    std::atomic<bool> first_has_ended{false};
    std::atomic<bool> ended_in_time{false};
    Home a(1);
    Home b(2);
    a.at_first_read = [&] {
      first_is_read = true;
      while (!second_is_asked_for) std::this_thread::yield();
      std::this_thread::sleep_for(20ms);
    };
    b.at_first_read = [&] {
      const auto deadline = std::chrono::steady_clock::now() + patience;
      while (!first_has_ended && std::chrono::steady_clock::now() < deadline)
        std::this_thread::sleep_for(2ms);
      ended_in_time = first_has_ended.load();
    };
    std::thread first([&] {
      EXPECT_TRUE(threads.fill(memory_, ByteCount{size}, a, {}).is_ok());
      first_has_ended = true;
    });
    while (!first_is_read) std::this_thread::yield();
    second_is_asked_for = true;
    EXPECT_TRUE(threads.fill(memory_ + kSize, ByteCount{kSize}, b, {}).is_ok());
    first.join();
    EXPECT_EQ(memory_[0], std::byte{1});
    EXPECT_EQ(memory_[size - 1], std::byte{1});
    EXPECT_EQ(memory_[kSize], std::byte{2});
    EXPECT_EQ(memory_[2 * kSize - 1], std::byte{2});
    return !ended_in_time;
  }

  std::byte* memory_ = nullptr;
};

TEST_F(CopyThreadsTest, from_a_large_job_they_go_on_to_the_next_before_it_has_ended) {
  ASSERT_NE(memory_, nullptr);
  bool seen = false;
  for (int tries = 0; tries < 10 && !seen; ++tries) seen = goes_on(kSize, 200ms);
  EXPECT_TRUE(seen);
}

TEST_F(CopyThreadsTest, who_waits_for_little_waits_for_no_other_job) {
  ASSERT_NE(memory_, nullptr);
  EXPECT_FALSE(goes_on(std::size_t{64} << 10, 20s));
}

}  // namespace
}  // namespace aprime::cuda
