// Signals that are not ours, and handlers that are not ours. Each case depends on who installed handlers
// first, so it runs in a process of its own.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <string>

#include "aprime/error.hpp"
#include "host/os/memory.hpp"
#include "host/os/syscalls.hpp"
#include "host/os/trap.hpp"
#include "tests/os/temporary_file.hpp"
#include "tests/os/trap_page.hpp"

namespace aprime::os {
namespace {

using Answer = TrapTarget::Answer;
using test::load;
using test::Page;
using test::store;

class TrapChain : public testing::Test {
 protected:
  TrapChain() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

void install(int signal, void (*handler)(int, siginfo_t*, void*), int flags = SA_SIGINFO) {
  struct ::sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = flags;
  ::sigaction(signal, &action, nullptr);
}
void reset_to(int signal, void (*disposition)(int)) {
  struct ::sigaction action {};
  action.sa_handler = disposition;
  ::sigaction(signal, &action, nullptr);
}
void reset_handlers() {
  reset_to(SIGSEGV, SIG_DFL);
  reset_to(SIGBUS, SIG_DFL);
  reset_to(SIGFPE, SIG_DFL);
}
/// What a processor cannot do; a sanitizer would say so first.
__attribute__((no_sanitize("undefined"), noinline)) int divide_by(volatile int& divisor) {
  volatile int dividend = 1;
  return dividend / divisor;
}
void exit_as_siginfo_says(int signal, siginfo_t* info, void*) {
  std::_Exit(info->si_signo == signal && info->si_addr != nullptr ? 40 + info->si_code : 1);
}

TEST_F(TrapChain, AnAccessElsewhereGoesToTheSiginfoHandlerThatWasThereBefore) {
  EXPECT_EXIT(
      {
        install(SIGSEGV, exit_as_siginfo_says);
        Page mine;
        Page other;
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        store(mine.memory.data(), 1);
        store(other.memory.data(), 1);
      },
      testing::ExitedWithCode(40 + SEGV_ACCERR), "");
}

TEST_F(TrapChain, AnAccessElsewhereGoesToThePlainHandlerThatWasThereBefore) {
  EXPECT_EXIT(
      {
        reset_to(SIGSEGV, [](int signal) { std::_Exit(signal == SIGSEGV ? 7 : 1); });
        Page mine;
        Page other;
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        store(other.memory.data(), 1);
      },
      testing::ExitedWithCode(7), "");
}

TEST_F(TrapChain, TheEarlierHandlerMayResolveTheFaultAndTheProgramGoesOn) {
  EXPECT_EXIT(
      {
        static std::byte* foreign = nullptr;
        install(SIGSEGV,
                [](int, siginfo_t*, void*) { ::mprotect(foreign, kPageBytes, PROT_READ | PROT_WRITE); });
        Page mine;
        Page other;
        foreign = other.memory.data();
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        for (int i = 0; i < 100; ++i) {
          ::mprotect(foreign, kPageBytes, PROT_NONE);
          store(foreign, 1);
        }
        std::_Exit(mine.traps.load() == 0 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST_F(TrapChain, TheEarlierHandlerMayTrapItselfWhenItAskedForThat) {
  EXPECT_EXIT(
      {
        static std::byte* ours = nullptr;
        install(
            SIGSEGV, [](int, siginfo_t*, void*) { std::_Exit(load(ours) == std::byte{0} ? 0 : 1); },
            SA_SIGINFO | SA_NODEFER);
        Page mine;
        Page other;
        ours = mine.memory.data();
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        store(other.memory.data(), 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST_F(TrapChain, AnEarlierHandlerThatWantedOneCallGetsOneCall) {
  EXPECT_EXIT(
      {
        install(
            SIGSEGV, [](int, siginfo_t*, void*) { (void)!::write(STDERR_FILENO, "once\n", 5); },
            SA_SIGINFO | static_cast<int>(SA_RESETHAND));
        Page mine;
        Page other;
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        store(other.memory.data(), 1);
      },
      testing::KilledBySignal(SIGSEGV), "^once\n$");
}

TEST_F(TrapChain, ALaterHandlerThatChainsToOursWorks) {
  EXPECT_EXIT(
      {
        static struct ::sigaction below {};
        static std::atomic<int> seen{0};
        Page mine;
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        ::sigaction(SIGSEGV, nullptr, &below);
        install(SIGSEGV, [](int signal, siginfo_t* info, void* context) {
          seen.fetch_add(1);
          below.sa_sigaction(signal, info, context);
        });
        store(mine.memory.data(), 1);
        std::_Exit(seen.load() == 1 && mine.traps.load() == 1 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST_F(TrapChain, WithoutAnEarlierHandlerTheDefaultActionEndsTheProcess) {
  EXPECT_EXIT(
      {
        reset_handlers();
        Page mine;
        Page other;
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        store(other.memory.data(), 1);
      },
      testing::KilledBySignal(SIGSEGV), "");
}

TEST_F(TrapChain, ADivisionByZeroGoesToTheHandlerThatWasThereBefore) {
  EXPECT_EXIT(
      {
        install(SIGFPE, exit_as_siginfo_says);
        Page mine;
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        volatile int zero = 0;
        std::_Exit(divide_by(zero));
      },
      testing::ExitedWithCode(40 + FPE_INTDIV), "");
}

TEST_F(TrapChain, ADivisionByZeroEndsTheProcessWhereNobodyHandlesIt) {
  EXPECT_EXIT(
      {
        reset_handlers();
        Page mine;
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        volatile int zero = 0;
        std::_Exit(divide_by(zero));
      },
      testing::KilledBySignal(SIGFPE), "");
}

TEST_F(TrapChain, AnIgnoredFaultEndsTheProcessAsTheKernelWould) {
  EXPECT_EXIT(
      {
        reset_to(SIGSEGV, SIG_IGN);
        Page mine;
        Page other;
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        store(other.memory.data(), 1);
      },
      testing::KilledBySignal(SIGSEGV), "");
}

TEST_F(TrapChain, AnIgnoredSignalThatSomebodySentStaysIgnored) {
  EXPECT_EXIT(
      {
        reset_to(SIGSEGV, SIG_IGN);
        Page mine;
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        ::raise(SIGSEGV);
        std::_Exit(0);
      },
      testing::ExitedWithCode(0), "");
}

TEST_F(TrapChain, ASignalThatSomebodySentTakesTheDefaultAction) {
  EXPECT_EXIT(
      {
        reset_handlers();
        Page mine;
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        ::raise(SIGBUS);
      },
      testing::KilledBySignal(SIGBUS), "");
}

TEST_F(TrapChain, NotMineIsPassedOnAsItCame) {
  EXPECT_EXIT(
      {
        reset_handlers();
        Page mine;
        mine.answer = Answer::not_mine;
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        store(mine.memory.data(), 1);
      },
      testing::KilledBySignal(SIGSEGV), "");
}

TEST_F(TrapChain, BusErrorOfAProtectionFaultEndsTheProcessBySigbus) {
  EXPECT_EXIT(
      {
        reset_handlers();
        Page mine;
        mine.answer = Answer::bus_error;
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        store(mine.memory.data(), 1);
      },
      testing::KilledBySignal(SIGBUS), "");
}

TEST_F(TrapChain, BusErrorOfAProtectionFaultReachesTheEarlierSigbusHandler) {
  EXPECT_EXIT(
      {
        install(SIGBUS, exit_as_siginfo_says);
        Page mine;
        mine.answer = Answer::bus_error;
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        store(mine.memory.data(), 1);
      },
      testing::ExitedWithCode(40 + BUS_ADRERR), "");
}

TEST_F(TrapChain, ABusErrorPastTheEndOfAFileReachesTheTarget) {
  test::TemporaryDirectory directory;
  const std::string path = directory.sparse("f", kPageBytes);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  void* base = ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ASSERT_NE(base, MAP_FAILED);
  const Mapped mapped(static_cast<std::byte*>(base), kPageBytes);
  ASSERT_EQ(::ftruncate(fd, 0), 0);
  struct Growing final : TrapTarget {
    Answer on_trap(const Trap&) noexcept override {
      return ::ftruncate(fd, kPageBytes) == 0 ? Answer::resolved : Answer::not_mine;
    }
    int fd = -1;
  } target;
  target.fd = fd;
  const TrapRegistration registration(mapped.data(), mapped.size(), target);
  EXPECT_EQ(load(mapped.data()), std::byte{0});
  ::close(fd);
}

TEST_F(TrapChain, AnErrorOfTheMemoryItselfIsNotAskedOfTheThreadsOwnTarget) {
  EXPECT_EXIT(
      {
        install(SIGBUS, exit_as_siginfo_says);
        Page mine;
        Page wild;
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        set_thread_trap_target(&wild);
        struct ::sigaction ours {};
        ::sigaction(SIGBUS, nullptr, &ours);
        siginfo_t info{};
        info.si_signo = SIGBUS;
        info.si_code = BUS_MCEERR_AR;
        info.si_addr = wild.memory.data();
        ucontext_t context{};
        ours.sa_sigaction(SIGBUS, &info, &context);
      },
      testing::ExitedWithCode(40 + BUS_MCEERR_AR), "");
}

TEST_F(TrapChain, AnAccessAfterUnregisteringIsNotOurs) {
  EXPECT_EXIT(
      {
        reset_handlers();
        Page mine;
        { const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine); }
        store(mine.memory.data(), 1);
      },
      testing::KilledBySignal(SIGSEGV), "");
}

TEST_F(TrapChain, AChildMadeByForkStartsWithAnEmptyRegistry) {
  EXPECT_EXIT(
      {
        reset_handlers();
        Page mine;
        std::optional<TrapRegistration> registration(std::in_place, mine.memory.data(), mine.memory.size(),
                                                     mine);
        const pid_t child = ::fork();
        if (child == 0) {
          // The memory is not inherited. Whatever is mapped at its place is not ours.
          ::mmap(mine.memory.data(), kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
                 -1, 0);
          Page fresh;
          const TrapRegistration own(fresh.memory.data(), fresh.memory.size(), fresh);
          store(fresh.memory.data(), 1);
          registration.reset();
          store(mine.memory.data(), 1);
          std::_Exit(fresh.traps.load() == 1 && mine.traps.load() == 0 ? 3 : 4);
        }
        int status = 0;
        ::waitpid(child, &status, 0);
        store(mine.memory.data(), 1);
        std::_Exit(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV && mine.traps.load() == 1 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST_F(TrapChain, ServesOnAnAlternateStackWhereThereIsOne) {
  EXPECT_EXIT(
      {
        struct Where final : TrapTarget {
          Answer on_trap(const Trap& trap) noexcept override {
            char here = 0;
            const char* p = &here;
            is_alternate = p >= low && p < low + 64 * 1024;
            ::mprotect(trap.address, kPageBytes, PROT_READ | PROT_WRITE);
            return Answer::resolved;
          }
          const char* low = nullptr;
          bool is_alternate = false;
        } target;
        Page page;
        const TrapRegistration registration(page.memory.data(), page.memory.size(), target);
        static char alternate[64 * 1024];
        target.low = alternate;
        stack_t stack{};
        stack.ss_sp = alternate;
        stack.ss_size = sizeof alternate;
        ::sigaltstack(&stack, nullptr);
        store(page.memory.data(), 1);
        std::_Exit(target.is_alternate ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST_F(TrapChain, ReportsThatHandlersCannotBeInstalled) {
  EXPECT_EXIT(
      {
        Page mine;
        for (const std::uint64_t nth : {1u, 2u, 3u, 4u, 5u, 6u}) {
          sys::set_fault_plan({.call = sys::Call::sigaction, .nth = nth, .times = 1, .error = EINVAL});
          try {
            const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
            std::_Exit(2);
          } catch (const Error& e) {
            if (e.code() != Errc::resources) std::_Exit(1);
          }
        }
        sys::clear_fault_plan();
        const TrapRegistration registration(mine.memory.data(), mine.memory.size(), mine);
        store(mine.memory.data(), 1);
        std::_Exit(mine.traps.load() == 1 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace aprime::os
