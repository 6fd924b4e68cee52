#include "host/os/futex.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace aprime::os {
namespace {

using namespace std::chrono_literals;

TEST(Futex, WaitReturnsAtOnceWhenTheWordHasChanged) {
  const std::atomic<std::uint32_t> word{1};
  const auto start = std::chrono::steady_clock::now();
  futex_wait(word, 0, 60s);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 30s);
}

TEST(Futex, WaitEndsAfterTheLimit) {
  const std::atomic<std::uint32_t> word{0};
  const auto start = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - start < 20ms) futex_wait(word, 0, 20ms);
  futex_wait(word, 0, -1ns);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 30s);
}

TEST(Futex, WakeAllWakesEveryWaiter) {
  std::atomic<std::uint32_t> word{0};
  std::thread waiters[3];
  for (auto& t : waiters) {
    t = std::thread([&] {
      while (word.load() == 0) futex_wait(word, 0, 60s);
    });
  }
  std::this_thread::sleep_for(5ms);
  const auto start = std::chrono::steady_clock::now();
  word.store(1);
  futex_wake_all(word);
  for (auto& t : waiters) t.join();
  EXPECT_LT(std::chrono::steady_clock::now() - start, 30s);
}

}  // namespace
}  // namespace aprime::os
