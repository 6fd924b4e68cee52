#include "host/os/memory.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <iterator>
#include <thread>
#include <vector>

#include "aprime/error.hpp"
#include "host/os/syscalls.hpp"

namespace aprime::os {
namespace {

TEST(Mapped, AnonymousMemoryIsZeroAndTakesWholePages) {
  const Mapped memory = Mapped::anonymous(5000);
  EXPECT_EQ(memory.size(), 2 * kPageBytes);
  for (const std::byte b : memory.bytes()) ASSERT_EQ(b, std::byte{0});
}

TEST(Mapped, HugeAlignedMemoryIsAlignedToTwoMebibytes) {
  for (int i = 0; i < 8; ++i) {
    const Mapped odd = Mapped::anonymous(kPageBytes);
    const Mapped memory = Mapped::anonymous(3 * kPageBytes, true);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory.data()) % (2u << 20), 0u);
    memory.data()[memory.size() - 1] = std::byte{1};
  }
}

TEST(Mapped, ATebibyteCostsNothingUntilItIsTouched) {
  const Mapped memory = Mapped::anonymous(std::size_t{1} << 40);
  memory.data()[memory.size() - 1] = std::byte{1};
  EXPECT_EQ(memory.data()[memory.size() - 1], std::byte{1});
}

TEST(Mapped, ReportsWantOfMemoryAsResources) {
  for (const sys::Call call : {sys::Call::mmap, sys::Call::mprotect, sys::Call::madvise}) {
    sys::set_fault_plan({.call = call, .nth = 1, .times = 1, .error = ENOMEM});
    try {
      Mapped::anonymous(kPageBytes);
      ADD_FAILURE() << "no exception for " << sys::name_of(call);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Errc::resources);
      EXPECT_EQ(e.system_error(), ENOMEM);
    }
    sys::clear_fault_plan();
  }
}

/// In a process of its own, which locks its memory; 0 if it may not.
template <class Body>
int exit_status_of_a_program_that_locks(int what, const Body& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    rlimit limit{};
    ::getrlimit(RLIMIT_MEMLOCK, &limit);
    if (::geteuid() != 0 && limit.rlim_cur != RLIM_INFINITY) std::_Exit(0);
    std::_Exit(body([what] { return ::mlockall(what) == 0; }));
  }
  int status = 0;
  return ::waitpid(child, &status, 0) == child ? status : -1;
}

TEST(Mapped, CostsNothingUntilItIsTouchedAlsoWhereAllMemoryIsLocked) {
  EXPECT_EQ(exit_status_of_a_program_that_locks(
                MCL_FUTURE,
                [](auto lock) {
                  if (!lock()) return 0;
                  const Mapped memory = Mapped::anonymous(std::size_t{256} << 20);
                  std::vector<unsigned char> present(memory.size() / kPageBytes);
                  ::mincore(memory.data(), memory.size(), present.data());
                  return std::count(present.begin(), present.end(), 0) == std::ssize(present) ? 0 : 1;
                }),
            0);
}

TEST(Mapped, IsClearedAlsoIfTheProgramHasLockedItSince) {
  EXPECT_EQ(exit_status_of_a_program_that_locks(MCL_CURRENT,
                                                [](auto lock) {
                                                  Mapped memory = Mapped::anonymous(2 * kPageBytes);
                                                  memory.data()[5] = std::byte{1};
                                                  if (!lock()) return 0;
                                                  if (!memory.clear().is_ok()) return 1;
                                                  return memory.data()[5] == std::byte{0} ? 0 : 2;
                                                }),
            0);
}

TEST(Mapped, MovingKeepsTheAddressAndEmptiesTheSource) {
  Mapped a = Mapped::anonymous(kPageBytes);
  std::byte* const address = a.data();
  const Mapped b = std::move(a);
  EXPECT_EQ(b.data(), address);
  EXPECT_FALSE(a);  // NOLINT(bugprone-use-after-move): that it is empty is the rule
}

TEST(GrowingTable, EntriesStayWhereTheyAreWhileItGrows) {
  GrowingTable<std::uint64_t> table;
  EXPECT_EQ(table.capacity(), 0u);
  table.reserve(1);
  std::uint64_t* const first = &table[0];
  *first = 42;
  table.reserve(std::uint64_t{1} << 28);
  EXPECT_EQ(&table[0], first);
  EXPECT_EQ(table[0], 42u);
  EXPECT_GE(table.capacity(), std::uint64_t{1} << 28);
}

TEST(GrowingTable, EveryIndexHasItsOwnZeroedEntry) {
  GrowingTable<std::uint64_t> table;
  constexpr std::uint64_t kCount = 300'000;  // crosses three extents
  table.reserve(kCount);
  for (std::uint64_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(table[i], 0u);
    table[i] = i + 1;
  }
  for (std::uint64_t i = 0; i < kCount; ++i) ASSERT_EQ(table[i], i + 1);
}

TEST(GrowingTable, ReadersNeedNoLockWhileItGrows) {
  GrowingTable<std::atomic<std::uint64_t>> table;
  table.reserve(1);
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([&] {
      while (!stop.load()) {
        for (std::uint64_t i = 0; i < table.capacity(); i += 1 << 12) table[i].fetch_add(1);
      }
    });
  }
  for (std::uint64_t n = 1; n < (std::uint64_t{1} << 22); n *= 2) table.reserve(n);
  stop.store(true);
  for (auto& t : readers) t.join();
  EXPECT_GE(table.capacity(), std::uint64_t{1} << 21);
}

}  // namespace
}  // namespace aprime::os
