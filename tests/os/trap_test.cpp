#include "host/os/trap.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "host/os/memory.hpp"
#include "tests/os/trap_page.hpp"
#include "tests/test_scale.hpp"

namespace aprime::os {
namespace {

using Answer = TrapTarget::Answer;
using test::load;
using test::Page;
using test::store;

TEST(Trap, LoadsAndStoresAreServedAndToldApart) {
  Page page;
  const TrapRegistration registration(page.memory.data(), page.memory.size(), page);
  EXPECT_EQ(load(page.memory.data() + 5), std::byte{0});
  EXPECT_EQ(page.last_address.load(), page.memory.data() + 5);
  EXPECT_FALSE(page.last_write.load());
  store(page.memory.data() + 9, 3);
  EXPECT_EQ(page.last_address.load(), page.memory.data() + 9);
  EXPECT_TRUE(page.last_write.load());
  EXPECT_EQ(page.traps.load(), 2);
  EXPECT_EQ(load(page.memory.data() + 9), std::byte{3});
}

TEST(Trap, ErrnoSurvivesTheHandler) {
  Page page;
  const TrapRegistration registration(page.memory.data(), page.memory.size(), page);
  errno = EDOM;
  (void)load(page.memory.data());
  EXPECT_EQ(errno, EDOM);
}

TEST(Trap, FindsTheRightOneOfManyTargets) {
  std::vector<std::unique_ptr<Page>> pages;
  std::vector<TrapRegistration> registrations;
  for (int i = 0; i < 100; ++i) pages.push_back(std::make_unique<Page>(3));
  for (auto& p : pages) registrations.emplace_back(p->memory.data(), p->memory.size(), *p);
  for (auto& p : pages) {
    store(p->memory.data() + p->memory.size() - 1, 1);
    (void)load(p->memory.data());
  }
  for (auto& p : pages) EXPECT_EQ(p->traps.load(), 2);
}

TEST(Trap, MovingARegistrationKeepsIt) {
  Page page;
  TrapRegistration first(page.memory.data(), page.memory.size(), page);
  TrapRegistration second = std::move(first);
  TrapRegistration third;
  third = std::move(second);
  store(page.memory.data(), 1);
  EXPECT_EQ(page.traps.load(), 1);
}

TEST(Trap, ManyThreadsMayBeInOneTarget) {
  const std::size_t pages = test::scaled<std::size_t>(2048);
  Page page(pages);
  const TrapRegistration registration(page.memory.data(), page.memory.size(), page);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = t; i < pages; i += 4) store(page.memory.data() + i * kPageBytes, 1);
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(page.traps.load(), static_cast<int>(pages));
}

/// Says when a thread is inside, and keeps it there.
struct Blocking final : TrapTarget {
  Answer on_trap(const Trap& trap) noexcept override {
    inside.store(true);
    while (!let_go.load()) ::usleep(100);
    const auto page = reinterpret_cast<std::uintptr_t>(trap.address) / kPageBytes * kPageBytes;
    ::mprotect(reinterpret_cast<void*>(page), kPageBytes, PROT_READ | PROT_WRITE);
    out.store(true);
    return Answer::resolved;
  }
  std::atomic<bool> inside{false};
  std::atomic<bool> let_go{false};
  std::atomic<bool> out{false};
};

TEST(Trap, UnregisteringWaitsForThreadsInsideTheTarget) {
  Page page;
  Blocking target;
  std::optional<TrapRegistration> registration(std::in_place, page.memory.data(), page.memory.size(), target);
  std::thread toucher([&] { store(page.memory.data(), 1); });
  while (!target.inside.load()) std::this_thread::yield();
  std::atomic<bool> removed{false};
  std::thread remover([&] {
    registration.reset();
    EXPECT_TRUE(target.out.load());
    removed.store(true);
  });
  ::usleep(20'000);
  EXPECT_FALSE(removed.load());
  target.let_go.store(true);
  remover.join();
  toucher.join();
}

TEST(Trap, TargetsComeAndGoWhileOthersTrap) {
  const std::size_t pages = test::scaled<std::size_t>(2048);
  Page steady(pages);
  const TrapRegistration registration(steady.memory.data(), steady.memory.size(), steady);
  std::atomic<bool> stop{false};
  std::vector<std::thread> churners;
  for (int t = 0; t < 2; ++t) {
    churners.emplace_back([&] {
      while (!stop.load()) {
        Page mine;
        const TrapRegistration own(mine.memory.data(), mine.memory.size(), mine);
        store(mine.memory.data(), 1);
        EXPECT_EQ(mine.traps.load(), 1);
      }
    });
  }
  for (std::size_t i = 0; i < pages; ++i) store(steady.memory.data() + i * kPageBytes, 1);
  stop.store(true);
  for (auto& t : churners) t.join();
  EXPECT_EQ(steady.traps.load(), static_cast<int>(pages));
}

TEST(Trap, AsynchronousSignalsWaitUntilTheAccessIsServed) {
  // A handler of the program that ran on top of ours and touched trapped memory would be killed: its SIGSEGV
  // is blocked.
  static volatile sig_atomic_t handled = 0;
  static volatile sig_atomic_t handled_inside = 0;
  handled = 0;
  handled_inside = 0;
  Page page;
  struct Raising final : TrapTarget {
    explicit Raising(Page& p) : page(p) {}
    Answer on_trap(const Trap& trap) noexcept override {
      ::raise(SIGUSR1);
      handled_inside = handled;
      return page.on_trap(trap);
    }
    Page& page;
  } target(page);
  struct ::sigaction old {};
  struct ::sigaction action {};
  action.sa_handler = [](int) { handled = 1; };
  ::sigaction(SIGUSR1, &action, &old);
  {
    const TrapRegistration registration(page.memory.data(), page.memory.size(), target);
    store(page.memory.data(), 1);
    ::usleep(1);  // ThreadSanitizer holds signals back until the next system call
    EXPECT_EQ(handled_inside, 0);
    EXPECT_EQ(handled, 1);
    EXPECT_EQ(page.traps.load(), 1);
  }
  ::sigaction(SIGUSR1, &old, nullptr);
}

TEST(Trap, TheAccessIsNoCancellationPointWhateverServesIt) {
  struct Waiting final : TrapTarget {
    Answer on_trap(const Trap& trap) noexcept override {
      ::usleep(1);
      return page.on_trap(trap);
    }
    Page page;
  } target;
  const TrapRegistration registration(target.page.memory.data(), target.page.memory.size(), target);
  struct Run {
    std::byte* at;
    bool stored = false;
  } run{target.page.memory.data()};
  pthread_t thread{};
  const auto body = [](void* argument) -> void* {
    auto& mine = *static_cast<Run*>(argument);
    ::pthread_cancel(::pthread_self());
    store(mine.at, 1);
    mine.stored = true;
    ::pthread_testcancel();
    return nullptr;
  };
  ASSERT_EQ(::pthread_create(&thread, nullptr, body, &run), 0);
  void* result = nullptr;
  ASSERT_EQ(::pthread_join(thread, &result), 0);
  EXPECT_TRUE(run.stored);
  EXPECT_EQ(result, PTHREAD_CANCELED) << "at its own cancellation point";
}

TEST(Trap, AThreadsOwnTargetAnswersForItsFaultsThatNobodyRegistered) {
  Page wild;
  Page registered;
  const TrapRegistration registration(registered.memory.data(), registered.memory.size(), registered);
  std::thread([&] {
    set_thread_trap_target(&wild);
    store(wild.memory.data() + 3, 1);
    store(registered.memory.data(), 1);
    set_thread_trap_target(nullptr);
  }).join();
  EXPECT_EQ(wild.traps.load(), 1);
  EXPECT_EQ(wild.last_address.load(), wild.memory.data() + 3);
  EXPECT_EQ(registered.traps.load(), 1);
}

TEST(Trap, TellsWhetherARangeTouchesARegisteredOne) {
  Page page(4);
  std::byte* const middle = page.memory.data() + kPageBytes;
  EXPECT_FALSE(is_trapped(middle, kPageBytes));
  {
    const TrapRegistration registration(middle, 2 * kPageBytes, page);
    EXPECT_TRUE(is_trapped(middle, 1));
    EXPECT_TRUE(is_trapped(middle - 10, 11));
    EXPECT_TRUE(is_trapped(middle + 2 * kPageBytes - 1, 100));
    EXPECT_TRUE(is_trapped(page.memory.data(), page.memory.size()));
    EXPECT_FALSE(is_trapped(middle - 10, 10));
    EXPECT_FALSE(is_trapped(middle + 2 * kPageBytes, 10));
    EXPECT_FALSE(is_trapped(middle, 0));
  }
  EXPECT_FALSE(is_trapped(middle, kPageBytes));
}

}  // namespace
}  // namespace aprime::os
