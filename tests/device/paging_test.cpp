#include "host/device/paging.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "host/device/sanitizer_fibers.hpp"
#include "host/os/memory.hpp"

// The host's side of faults in a kernel, without a device.

namespace aprime::device {
namespace {

class HostMemory : public PagingMemory {
 public:
  std::byte* shared(std::size_t bytes) override { return device(bytes); }
  std::byte* device(std::size_t bytes) override {
    return memory_.emplace_back(os::Mapped::anonymous(bytes, true)).data();
  }
  void free(std::byte*) noexcept override {}
  Status clear(std::byte*) noexcept override { return {}; }
  Status upload(std::byte* to, std::span<const std::byte> from) noexcept override {
    std::copy(from.begin(), from.end(), to);
    return {};
  }

 private:
  std::vector<os::Mapped> memory_;
};

/// Notes what is done to it, by its first letter.
class NotingRegion final : public PagedRegion {
 public:
  explicit NotingRegion(bool fails) : fails_(fails) {}
  void prepare_session() override {
    noted += 'p';
    if (fails_) throw Error(Errc::resources, "no memory for a page table");
  }
  void enter_session() noexcept override { noted += 'e'; }
  void cancel_session() noexcept override { noted += 'c'; }
  void leave_session() noexcept override { noted += 'l'; }
  Status serve(GranuleIndex, bool) noexcept override { return {}; }
  std::span<std::uint64_t> table() const noexcept override { return {}; }
  RegionId id() const noexcept override { return RegionId{0}; }

  std::string noted;

 private:
  const bool fails_;
};

/// A host thread that is at work on a region in a session waits for the pager, which there is not.
TEST(Paging, no_region_enters_a_session_that_there_will_not_be) {
  HostMemory memory;
  Paging paging(memory, nullptr, [](const detail::PagingPort*) { return Status{}; });
  NotingRegion good(false), bad(true), other(false);
  PagedRegion* const all[] = {&good, &bad, &other};
  EXPECT_THROW(paging.begin(all), Error);
  EXPECT_EQ(good.noted + " " + bad.noted + " " + other.noted, "pc p ");
  PagedRegion* const two[] = {&good, &other};
  good.noted.clear();
  paging.begin(two);
  paging.end(true);
  EXPECT_EQ(good.noted + " " + other.noted, "pel pel");
}

/// Once all memory is there, leaves address space for the stacks of two more threads.
class ScarceMemory final : public HostMemory {
 public:
  static constexpr std::size_t kStackBytes = std::size_t{256} << 20;

  Status upload(std::byte*, std::span<const std::byte>) noexcept override {
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlimit limit{pages * 4096 + kStackBytes * 5 / 2, RLIM_INFINITY};
    ::setrlimit(RLIMIT_AS, &limit);
    return {};
  }
};

TEST(Paging, threads_that_cannot_be_started_are_an_error) {
  // A sanitizer has more addresses than any limit that would stop a thread.
  if (sanitizer::address || sanitizer::thread) return;
  const pid_t child = ::fork();
  if (child == 0) {
    // Larger than any stack that was left behind for use by the next thread.
    pthread_attr_t attributes;
    ::pthread_attr_init(&attributes);
    ::pthread_attr_setstacksize(&attributes, ScarceMemory::kStackBytes);
    ::pthread_setattr_default_np(&attributes);
    ScarceMemory memory;
    try {
      const Paging paging(memory, nullptr, [](const detail::PagingPort*) { return Status{}; });
      std::_Exit(1);
    } catch (const Error& error) {
      std::_Exit(error.code() == Errc::resources ? 0 : 2);
    }
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace aprime::device
