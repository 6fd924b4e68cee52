#include "aprime/kernel.hpp"
#include "host/device/executor.hpp"
#include "host/device/kernel_stop.hpp"
#include "tests/device/launch_kernel.hpp"

#include <gtest/gtest.h>

#include <sys/mman.h>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

// How launches end that do not complete, and that the executor is as good as new afterwards.

namespace aprime::device {
namespace {

Grid grid_of(unsigned blocks, unsigned threads) { return Grid{Dim3{blocks, 1, 1}, Dim3{threads, 1, 1}, 0}; }

bool mentions(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// A launch that waits in every way still gives the right answer.
void expect_usable(Executor& executor) {
  unsigned sum = 0;
  const auto result = launch(executor, grid_of(6, 128), [&] {
    __syncthreads();
    const unsigned one = __shfl_xor_sync(0xffff'ffffU, 1U, 1);
    __syncthreads();
    atomicAdd(&sum, one);
  });
  EXPECT_TRUE(result.completed()) << result.message;
  EXPECT_EQ(sum, 6U * 128U);
}

TEST(ExecutorStop, ADivergentBlockBarrierIsReportedNotHung) {
  Executor executor(2);
  const auto result = launch(
      executor, Grid{Dim3{1, 1, 1}, Dim3{64, 1, 1}, 0},
      [] {
        if (threadIdx.x == 5) {
          __syncwarp(0x0000'0060U);
        } else {
          __syncthreads();
        }
      },
      "diverging");
  EXPECT_EQ(result.outcome, LaunchOutcome::misuse);
  EXPECT_TRUE(mentions(result.message, "kernel diverging, block (0,0,0)")) << result.message;
  EXPECT_TRUE(mentions(result.message, "63 at a block barrier")) << result.message;
  EXPECT_TRUE(mentions(result.message, "1 in __syncwarp (mask 0x00000060)")) << result.message;
  EXPECT_TRUE(mentions(result.message, "for lanes 0x00000040 of warp 0")) << result.message;
  expect_usable(executor);
}

TEST(ExecutorStop, AShuffleAmongMissingLanesIsReportedNotHung) {
  Executor executor(1);
  const auto result = launch(executor, grid_of(2, 32), [] {
    if (threadIdx.x < 16) {
      static_cast<void>(__shfl_sync(0xffff'ffffU, threadIdx.x, 20));
    } else {
      static_cast<void>(__ballot_sync(0xffff'ffffU, 1));
    }
  });
  EXPECT_EQ(result.outcome, LaunchOutcome::misuse);
  EXPECT_TRUE(mentions(result.message, "16 in __shfl_sync (mask 0xffffffff)")) << result.message;
  EXPECT_TRUE(mentions(result.message, "for lanes 0xffff0000 of warp 0")) << result.message;
  EXPECT_TRUE(mentions(result.message, "16 in __ballot_sync (mask 0xffffffff)")) << result.message;
  expect_usable(executor);
}

TEST(ExecutorStop, AMaskMustNameItsCaller) {
  Executor executor(1);
  const auto result = launch(executor, grid_of(1, 32), [] { __syncwarp(0xffff'fffeU); });
  EXPECT_EQ(result.outcome, LaunchOutcome::misuse);
  EXPECT_TRUE(mentions(result.message, "__syncwarp called with a mask that does not name the calling lane"))
      << result.message;
  expect_usable(executor);
}

TEST(ExecutorStop, AStoppedKernelReturnsItsFaultAndTheThreadThatHadIt) {
  Executor executor(2);
  const int source = 0;
  std::atomic<unsigned> after_stop{0};
  const auto result = launch(
      executor, Grid{Dim3{4, 1, 1}, Dim3{8, 4, 1}, 0},
      [&] {
        if (blockIdx.x == 1 && threadIdx.x == 3 && threadIdx.y == 2) {
          stop_current_kernel(KernelFault{7, 123'456'789'012, true, &source});
        }
        __syncthreads();
        if (blockIdx.x == 1) ++after_stop;
      },
      "stopping");
  EXPECT_EQ(result.outcome, LaunchOutcome::fault);
  EXPECT_EQ(result.fault.kind, 7);
  EXPECT_EQ(result.fault.offset, 123'456'789'012U);
  EXPECT_TRUE(result.fault.write);
  EXPECT_EQ(result.fault.source, &source);
  EXPECT_EQ(result.block, (Index3{1, 0, 0}));
  EXPECT_EQ(result.thread, (Index3{3, 2, 0}));
  EXPECT_TRUE(mentions(result.message, "kernel stopping, block (1,0,0), thread (3,2,0)")) << result.message;
  EXPECT_EQ(after_stop, 0U);
  expect_usable(executor);
}

TEST(ExecutorStop, AStopEndsBlocksThatWaitForOthersAndBlocksNotYetStarted) {
  Executor executor(2);
  std::atomic<unsigned> started{0};
  const auto result = launch(executor, grid_of(100'000, 2), [&] {
    if (threadIdx.x == 0) ++started;
    if (blockIdx.x == 1) stop_current_kernel(KernelFault{});
    if (blockIdx.x == 0) {
      for (;;) __nanosleep(1000);
    }
  });
  EXPECT_EQ(result.outcome, LaunchOutcome::fault);
  EXPECT_LT(started, 100'000U);
  expect_usable(executor);
}

/// Counts on destruction, which a stopped kernel must not run.
struct Witness {
  std::atomic<unsigned>& destroyed;
  ~Witness() { ++destroyed; }
};

TEST(ExecutorStop, AStoppedKernelIsNotUnwound) {
  Executor executor(1);
  std::atomic<unsigned> destroyed{0};
  const auto result = launch(executor, grid_of(1, 64), [&] {
    const Witness witness{destroyed};
    __syncthreads();
    stop_current_kernel(KernelFault{});
  });
  EXPECT_EQ(result.outcome, LaunchOutcome::fault);
  EXPECT_EQ(destroyed, 0U);
  expect_usable(executor);
}

TEST(ExecutorStop, AnExceptionThatLeavesAKernelEndsTheLaunchAndKeepsItsText) {
  Executor executor(2);
  const auto thrown = launch(executor, grid_of(3, 96), [] {
    __syncthreads();
    if (threadIdx.x == 70) throw std::runtime_error("the bucket has a hole");
    __syncthreads();
  });
  EXPECT_EQ(thrown.outcome, LaunchOutcome::exception);
  EXPECT_TRUE(mentions(thrown.message, "the bucket has a hole")) << thrown.message;
  EXPECT_EQ(thrown.thread, (Index3{70, 0, 0}));

  const auto odd = launch(executor, grid_of(1, 1), [] { throw 42; });
  EXPECT_EQ(odd.outcome, LaunchOutcome::exception);
  expect_usable(executor);
}

TEST(ExecutorStop, AThreadMayWaitInsideACatchBlock) {
  Executor executor(1);
  const auto result = launch(executor, grid_of(1, 64), [] {
    try {
      throw threadIdx.x;
    } catch (const unsigned& outer) {
      __syncthreads();
      try {
        throw;  // This thread's exception, not that of whoever threw last.
      } catch (const unsigned& inner) {
        EXPECT_EQ(inner, threadIdx.x);
        EXPECT_EQ(&inner, &outer);
      }
    }
    EXPECT_EQ(std::uncaught_exceptions(), 0);
  });
  EXPECT_TRUE(result.completed()) << result.message;
}

TEST(ExecutorStop, AKernelCannotLaunchAnother) {
  Executor executor(1);
  const auto result =
      launch(executor, grid_of(1, 1), [&] { static_cast<void>(launch(executor, grid_of(1, 1), [] {})); });
  EXPECT_EQ(result.outcome, LaunchOutcome::exception);
  EXPECT_TRUE(mentions(result.message, "a kernel cannot launch another")) << result.message;
}

TEST(ExecutorStop, OnlyKernelCodeIsOnADeviceThread) {
  Executor executor(1);
  EXPECT_FALSE(on_device_thread());
  EXPECT_EQ(current_kernel().name, nullptr);
  const auto result = launch(
      executor, grid_of(2, 40),
      [] {
        __syncthreads();
        EXPECT_TRUE(on_device_thread());
        EXPECT_STREQ(current_kernel().name, "who_am_i");
        EXPECT_EQ(current_kernel().block.x, blockIdx.x);
        EXPECT_EQ(current_kernel().thread.x, threadIdx.x);
      },
      "who_am_i");
  EXPECT_TRUE(result.completed()) << result.message;
}

/// A page that faults, and a SIGSEGV handler that ends the kernel which touches it.
class ForbiddenPage {
 public:
  ForbiddenPage() {
    page_ = static_cast<volatile int*>(::mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (page_ == MAP_FAILED) throw std::bad_alloc();
    struct sigaction action {};
    action.sa_sigaction = &ForbiddenPage::handle;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    ::sigaction(SIGSEGV, &action, &before_);
  }
  ~ForbiddenPage() {
    ::sigaction(SIGSEGV, &before_, nullptr);
    ::munmap(const_cast<int*>(page_), 4096);
  }
  ForbiddenPage(const ForbiddenPage&) = delete;
  ForbiddenPage& operator=(const ForbiddenPage&) = delete;

  [[nodiscard]] volatile int* get() const { return page_; }

 private:
  static void handle(int /*signal*/, siginfo_t* info, void* context) {
    if (!on_device_thread()) std::abort();
    redirect_to_stop(*static_cast<ucontext_t*>(context), KernelFault{11, 0, true, info->si_addr});
  }

  volatile int* page_;
  struct sigaction before_ {};
};

TEST(ExecutorStop, AFaultHandlerCanEndTheKernel) {
  const ForbiddenPage forbidden;
  Executor executor(2);
  for (unsigned round = 0; round < 50; ++round) {
    const auto result = launch(executor, grid_of(3, 64), [&] {
      if (round % 2 == 0) __syncthreads();
      if (blockIdx.x == 1 && threadIdx.x == round) *forbidden.get() = 1;
      __syncthreads();
    });
    ASSERT_EQ(result.outcome, LaunchOutcome::fault);
    EXPECT_EQ(result.fault.kind, 11);
    EXPECT_EQ(result.fault.source, const_cast<int*>(forbidden.get()));
    EXPECT_EQ(result.thread, (Index3{round, 0, 0}));
    EXPECT_EQ(result.block, (Index3{1, 0, 0}));
  }
  expect_usable(executor);
}

TEST(ExecutorStop, AFaultInsideACatchBlockLeavesNoExceptionBehind) {
  // Not unwound means never freed; from here the exception stays reachable for leak checkers.
  static std::exception_ptr kept;
  const ForbiddenPage forbidden;
  Executor executor(1);
  const auto faulting = launch(executor, grid_of(1, 1), [&] {
    try {
      throw 1;
    } catch (int) {
      kept = std::current_exception();
      *forbidden.get() = 1;
    }
  });
  EXPECT_EQ(faulting.outcome, LaunchOutcome::fault);
  const auto next = launch(executor, grid_of(1, 1), [] { EXPECT_EQ(std::current_exception(), nullptr); });
  EXPECT_TRUE(next.completed()) << next.message;
}

/// Larger than a stack, and nothing of it is touched before its far end.
[[gnu::noinline]] void use_a_large_frame() {
  char far[72 << 10];
  *static_cast<volatile char*>(far) = 1;
}

TEST(ExecutorStop, AFrameLargerThanTheStackEndsInTheGuardAndNotInAnotherThreadsStack) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        ::signal(SIGSEGV, SIG_DFL);  // a sanitizer's
        Executor executor(1, 64 << 10);
        static_cast<void>(launch(executor, grid_of(1, 8), [&] {
          __syncthreads();
          if (threadIdx.x == 4) use_a_large_frame();
          __syncthreads();
        }));
      },
      testing::KilledBySignal(SIGSEGV), "");
}

TEST(ExecutorStop, ManyStoppedLaunchesReuseTheirStacks) {
  Executor executor(2);
  for (int i = 0; i < 100; ++i) {
    const auto result = launch(executor, grid_of(4, 64), [] {
      __syncthreads();
      if (threadIdx.x == 63) stop_current_kernel(KernelFault{});
      __syncthreads();
    });
    ASSERT_EQ(result.outcome, LaunchOutcome::fault);
  }
  EXPECT_LE(executor.counters().fibers, 2U * 96U);
  expect_usable(executor);
}

}  // namespace
}  // namespace aprime::device
