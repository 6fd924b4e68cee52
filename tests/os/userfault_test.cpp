#include "host/os/userfault.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "host/os/syscalls.hpp"
#include "host/os/trap.hpp"
#include "tests/os/temporary_file.hpp"
#include "tests/test_scale.hpp"

namespace aprime::os {
namespace {

std::byte load(const std::byte* p) { return *static_cast<const volatile std::byte*>(p); }
void store(std::byte* p, std::byte value) { *static_cast<volatile std::byte*>(p) = value; }

/// Fills missing pages read-only from `source` and upgrades them at the first store, as a device with
/// replayable faults would.
struct Pager final : TrapTarget {
  Pager(UserfaultMemory& m, std::span<const std::byte> s) : memory(m), source(s) {}
  Answer on_trap(const Trap& trap) noexcept override {
    const auto page = static_cast<std::size_t>(trap.address - memory.data()) / kPageBytes * kPageBytes;
    (trap.write ? writes : reads).fetch_add(1);
    std::size_t done = 0;
    if (!memory.copy(memory.data() + page, source.subspan(page, kPageBytes), true, &done).is_ok()) {
      return Answer::bus_error;
    }
    if (!trap.write) return Answer::resolved;
    return memory.write_protect(memory.data() + page, kPageBytes, false).is_ok() ? Answer::resolved
                                                                                 : Answer::bus_error;
  }
  UserfaultMemory& memory;
  std::span<const std::byte> source;
  std::atomic<int> reads{0};
  std::atomic<int> writes{0};
};

class UserfaultTest : public testing::Test {
 protected:
  static constexpr std::size_t kPages = 64;
  ~UserfaultTest() override { sys::clear_fault_plan(); }

  std::byte* page(std::size_t n) const { return memory_.data() + n * kPageBytes; }
  std::span<const std::byte> source(std::size_t first, std::size_t pages) const {
    return std::span(source_).subspan(first * kPageBytes, pages * kPageBytes);
  }

  UserfaultMemory memory_{kPages * kPageBytes};
  std::vector<std::byte> source_ = test::pattern(kPages * kPageBytes);
  Pager pager_{memory_, source_};
  TrapRegistration registration_{memory_.data(), memory_.size(), pager_};
  std::size_t done_ = 0;
};

TEST_F(UserfaultTest, ReadsArriveOncePerPageAndNeverGrantTheWriteRight) {
  for (std::size_t i = 0; i < memory_.size(); i += 512) ASSERT_EQ(load(memory_.data() + i), source_[i]);
  EXPECT_EQ(pager_.reads.load(), static_cast<int>(kPages));
  store(page(5) + 7, std::byte{9});
  EXPECT_EQ(pager_.writes.load(), 1);
  EXPECT_EQ(load(page(5) + 7), std::byte{9});
  EXPECT_EQ(load(page(5) + 8), source_[5 * kPageBytes + 8]);
}

TEST_F(UserfaultTest, TakingTheWriteRightKeepsTheBytesAndTheNextStoreTraps) {
  store(page(0), std::byte{1});
  store(page(0) + 1, std::byte{2});
  EXPECT_EQ(pager_.writes.load(), 1);
  ASSERT_TRUE(memory_.write_protect(page(0), kPageBytes, true).is_ok());
  EXPECT_EQ(load(page(0) + 1), std::byte{2});
  EXPECT_EQ(pager_.reads.load(), 0);
  store(page(0), std::byte{3});
  EXPECT_EQ(pager_.writes.load(), 2);
  EXPECT_EQ(load(page(0) + 1), std::byte{2});
}

TEST_F(UserfaultTest, DroppedPagesAreMissing) {
  ASSERT_TRUE(memory_.copy(page(0), source(0, 4), false, &done_).is_ok());
  EXPECT_EQ(done_, 4 * kPageBytes);
  store(page(1), std::byte{0});
  EXPECT_EQ(pager_.writes.load(), 0);
  ASSERT_TRUE(memory_.drop(page(1), 2 * kPageBytes).is_ok());
  EXPECT_EQ(load(page(1)), source_[kPageBytes]);
  EXPECT_EQ(load(page(3)), source_[3 * kPageBytes]);
  EXPECT_EQ(pager_.reads.load(), 1);
}

TEST_F(UserfaultTest, ZeroedPagesAreWritableAndCanBeProtectedBeforeAndAfterAStore) {
  ASSERT_TRUE(memory_.zero(page(0), 4 * kPageBytes, &done_).is_ok());
  EXPECT_EQ(done_, 4 * kPageBytes);
  EXPECT_EQ(load(page(3) + 77), std::byte{0});
  store(page(0), std::byte{1});
  EXPECT_EQ(pager_.reads.load() + pager_.writes.load(), 0);
  ASSERT_TRUE(memory_.write_protect(page(0), 2 * kPageBytes, true).is_ok());
  store(page(0) + 1, std::byte{2});
  store(page(1) + 1, std::byte{3});
  EXPECT_EQ(pager_.writes.load(), 2);
  EXPECT_EQ(load(page(0)), std::byte{1});
  EXPECT_EQ(load(page(1)), std::byte{0});
  EXPECT_EQ(load(page(1) + 1), std::byte{3});
}

TEST_F(UserfaultTest, PagesThatArePresentAreLeftAloneAndCountAsDone) {
  const std::vector<std::byte> other = test::pattern(kPageBytes, 99);
  ASSERT_TRUE(memory_.copy(page(2), other, false, &done_).is_ok());
  ASSERT_TRUE(memory_.copy(page(0), source(0, 5), true, &done_).is_ok());
  EXPECT_EQ(done_, 5 * kPageBytes);
  ASSERT_TRUE(memory_.zero(page(0), 7 * kPageBytes, &done_).is_ok());
  EXPECT_EQ(done_, 7 * kPageBytes);
  EXPECT_EQ(std::memcmp(page(2), other.data(), kPageBytes), 0);
  EXPECT_EQ(std::memcmp(page(1), source(1, 1).data(), kPageBytes), 0);
  EXPECT_EQ(std::memcmp(page(3), source(3, 2).data(), 2 * kPageBytes), 0);
  EXPECT_EQ(load(page(6)), std::byte{0});
  EXPECT_EQ(pager_.reads.load(), 0);
}

TEST_F(UserfaultTest, MissingPagesStayMissingWhenProtected) {
  ASSERT_TRUE(memory_.write_protect(page(0), 8 * kPageBytes, true).is_ok());
  EXPECT_EQ(load(page(4)), source_[4 * kPageBytes]);
  EXPECT_EQ(pager_.reads.load(), 1);
}

TEST_F(UserfaultTest, CopiesFromAFileAndStopsWhereItWasCutOff) {
  test::TemporaryDirectory directory;
  const std::string path = directory.file("f", std::span(source_).first(16 * kPageBytes));
  File file = File::open(path, Access::read_write);
  ASSERT_TRUE(memory_.copy(page(0), file.alias().first(16 * kPageBytes), true, &done_).is_ok());
  EXPECT_EQ(std::memcmp(memory_.data(), source_.data(), 16 * kPageBytes), 0);
  ASSERT_TRUE(memory_.drop(page(0), 16 * kPageBytes).is_ok());
  ASSERT_TRUE(file.truncate(ByteCount{5 * kPageBytes + 100}).is_ok());
  const Status status = memory_.copy(page(0), file.alias().first(16 * kPageBytes), true, &done_);
  EXPECT_EQ(status.code, Errc::out_of_range);
  EXPECT_EQ(done_, 6 * kPageBytes);
  EXPECT_EQ(std::memcmp(memory_.data(), source_.data(), 5 * kPageBytes + 100), 0);
  EXPECT_EQ(load(page(5) + 100), std::byte{0}) << "nothing past the end of the file";
}

TEST_F(UserfaultTest, RetriesWhileTheAddressSpaceIsChangingAndReportsWantOfMemory) {
  sys::set_fault_plan({.call = sys::Call::ioctl, .nth = 1, .times = 3, .error = EAGAIN});
  EXPECT_TRUE(memory_.copy(page(0), source(0, 2), true, &done_).is_ok());
  EXPECT_EQ(sys::faults_injected(), 3u);
  sys::set_fault_plan({.call = sys::Call::ioctl, .nth = 1, .times = 3, .error = EAGAIN});
  EXPECT_TRUE(memory_.write_protect(page(0), kPageBytes, true).is_ok());
  EXPECT_EQ(sys::faults_injected(), 3u);
  sys::set_fault_plan({.call = sys::Call::ioctl, .nth = 1, .times = 1, .error = ENOMEM});
  const Status status = memory_.copy(page(4), source(4, 2), true, &done_);
  EXPECT_EQ(status.code, Errc::resources);
  EXPECT_EQ(status.system_error, ENOMEM);
  EXPECT_EQ(done_, 0u);
  sys::set_fault_plan({.call = sys::Call::madvise, .nth = 1, .times = 1, .error = ENOMEM});
  EXPECT_EQ(memory_.drop(page(0), kPageBytes).code, Errc::resources);
}

TEST_F(UserfaultTest, ThreadsThatWantOnePageAllGetIt) {
  for (int round = test::scaled(64); round > 0; --round) {
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (std::size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (std::size_t p = 0; p < kPages; ++p) {
          if (load(page(p) + 100) != source_[p * kPageBytes + 100]) wrong.fetch_add(1);
          // A byte of its own per thread, so that what is stored is stored by one.
          store(page(p) + t, std::byte{static_cast<unsigned char>(t + 1)});
        }
      });
    }
    for (auto& t : threads) t.join();
    EXPECT_EQ(wrong.load(), 0);
    for (std::size_t p = 0; p < kPages; ++p) {
      for (std::size_t t = 0; t < 4; ++t) ASSERT_EQ(load(page(p) + t), static_cast<std::byte>(t + 1));
    }
    ASSERT_TRUE(memory_.drop(page(0), memory_.size()).is_ok());
  }
}

TEST(Userfault, IsMissingAtFirstInAProgramThatLocksItsMemory) {
  const pid_t child = ::fork();
  if (child == 0) {
    // Where no memory may be locked there is no such program.
    if (::mlockall(MCL_FUTURE) != 0) std::_Exit(0);
    const std::vector<std::byte> source = test::pattern(2 * kPageBytes);
    UserfaultMemory memory(source.size());
    std::size_t done = 0;
    if (!memory.copy(memory.data(), source, true, &done).is_ok()) std::_Exit(1);
    std::_Exit(std::memcmp(memory.data(), source.data(), source.size()) == 0 ? 0 : 2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "2: zeros in place of what was copied";
}

TEST(Userfault, IsDroppedAlsoIfTheProgramHasLockedItSince) {
  const pid_t child = ::fork();
  if (child == 0) {
    const std::vector<std::byte> before(2 * kPageBytes, std::byte{1});
    const std::vector<std::byte> after(2 * kPageBytes, std::byte{2});
    UserfaultMemory memory(before.size());
    std::size_t done = 0;
    if (!memory.copy(memory.data(), before, true, &done).is_ok()) std::_Exit(1);
    if (::mlockall(MCL_CURRENT) != 0) std::_Exit(0);
    if (!memory.drop(memory.data(), before.size()).is_ok()) std::_Exit(2);
    if (!memory.copy(memory.data(), after, true, &done).is_ok()) std::_Exit(3);
    std::_Exit(std::memcmp(memory.data(), after.data(), after.size()) == 0 ? 0 : 4);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(Userfault, AChildThatTouchesItCrashes) {
  // So large that its start stays empty in the child, where a sanitizer maps memory of its own.
  const UserfaultMemory memory(std::size_t{1} << 30);
  GTEST_FLAG_SET(death_test_style, "fast");
  EXPECT_EXIT(
      {
        ::signal(SIGSEGV, SIG_DFL);
        (void)load(memory.data());
      },
      testing::KilledBySignal(SIGSEGV), "");
}

TEST(Userfault, IsAvailableHereAndToOrdinaryUsers) {
  EXPECT_EQ(UserfaultMemory::why_unavailable(), "");
  EXPECT_EXIT(
      {
        if (::geteuid() == 0 && ::setuid(65534) != 0) std::_Exit(1);
        std::_Exit(UserfaultMemory::why_unavailable().empty() ? 0 : 2);
      },
      testing::ExitedWithCode(0), "");
}

TEST(Userfault, SaysWhyItIsUnavailable) {
  struct Case {
    sys::Call call;
    std::uint64_t nth;
    int error;
    const char* word;
  };
  for (const Case c : {Case{sys::Call::userfaultfd, 1, EPERM, "forbidden"},
                       Case{sys::Call::userfaultfd, 1, ENOSYS, "CONFIG_USERFAULTFD"},
                       Case{sys::Call::userfaultfd, 1, EINVAL, "5.11"},
                       Case{sys::Call::userfaultfd, 1, EMFILE, "Too many open files"},
                       Case{sys::Call::ioctl, 1, EINVAL, "cannot signal faults"},
                       Case{sys::Call::ioctl, 2, EINVAL, "cannot register"}}) {
    sys::set_fault_plan({.call = c.call, .nth = c.nth, .times = 1, .error = c.error});
    EXPECT_NE(UserfaultMemory::why_unavailable().find(c.word), std::string::npos) << c.word;
    sys::clear_fault_plan();
  }
}

}  // namespace
}  // namespace aprime::os
