#include "host/os/syscalls.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <string>

#include "host/os/file.hpp"

namespace aprime::os {
namespace {

class FaultPlanTest : public testing::Test {
 protected:
  ~FaultPlanTest() override { sys::clear_fault_plan(); }
  ssize_t read_one_byte() {
    char byte = 0;
    return sys::pread(fd_.get(), &byte, 1, 0);
  }

  Descriptor fd_{sys::open("/proc/self/exe", 0)};
};

TEST_F(FaultPlanTest, FailsTheNthCallWithThePlansErrnoAndNoOther) {
  sys::set_fault_plan({.call = sys::Call::pread, .nth = 2, .times = 1, .error = EIO});
  EXPECT_EQ(read_one_byte(), 1);
  errno = 0;
  EXPECT_EQ(read_one_byte(), -1);
  EXPECT_EQ(errno, EIO);
  EXPECT_EQ(read_one_byte(), 1);
  EXPECT_EQ(sys::calls_made(sys::Call::pread), 3u);
  EXPECT_EQ(sys::faults_injected(), 1u);
}

TEST_F(FaultPlanTest, FailsTimesCallsInARowThenNoMore) {
  sys::set_fault_plan({.call = sys::Call::pread, .nth = 1, .times = 2, .error = EINTR});
  EXPECT_EQ(read_one_byte(), -1);
  EXPECT_EQ(read_one_byte(), -1);
  EXPECT_EQ(read_one_byte(), 1);
}

TEST_F(FaultPlanTest, ZeroTimesMeansForEver) {
  sys::set_fault_plan({.call = sys::Call::pread, .nth = 2, .times = 0, .error = EIO});
  EXPECT_EQ(read_one_byte(), 1);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(read_one_byte(), -1);
}

TEST_F(FaultPlanTest, FailsAgainAfterEachSoManyCalls) {
  sys::set_fault_plan({.call = sys::Call::pread, .nth = 2, .times = 2, .error = EIO, .every = 5});
  std::string outcomes;
  for (int i = 0; i < 13; ++i) outcomes += read_one_byte() == 1 ? '.' : 'x';
  EXPECT_EQ(outcomes, ".xx...xx...xx");
}

TEST_F(FaultPlanTest, HitsOnlyTheNamedCallAndCountsAll) {
  sys::set_fault_plan({.call = sys::Call::fdatasync, .nth = 1, .times = 0, .error = EIO});
  EXPECT_EQ(read_one_byte(), 1);
  EXPECT_EQ(sys::calls_made(sys::Call::pread), 1u);
  EXPECT_EQ(sys::calls_made(sys::Call::fdatasync), 0u);
  EXPECT_EQ(sys::faults_injected(), 0u);
}

TEST_F(FaultPlanTest, SettingAPlanStartsCountingAnewAndClearingEndsIt) {
  sys::set_fault_plan({});
  read_one_byte();
  sys::set_fault_plan({});
  EXPECT_EQ(sys::calls_made(sys::Call::pread), 0u);
  read_one_byte();
  sys::clear_fault_plan();
  read_one_byte();
  EXPECT_EQ(sys::calls_made(sys::Call::pread), 1u);
}

TEST_F(FaultPlanTest, AHitCallDoesNothing) {
  sys::set_fault_plan({.call = sys::Call::mmap, .nth = 1, .times = 1, .error = ENOMEM});
  EXPECT_EQ(sys::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), MAP_FAILED);
  EXPECT_EQ(errno, ENOMEM);
}

TEST(CallNames, AreAllThereAndDiffer) {
  std::set<std::string> names;
  for (int i = 0; i < static_cast<int>(sys::Call::count_); ++i) {
    const char* name = sys::name_of(static_cast<sys::Call>(i));
    ASSERT_NE(name, nullptr);
    EXPECT_TRUE(names.insert(name).second) << name;
  }
}

}  // namespace
}  // namespace aprime::os
