#include "host/os/syscalls.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>

namespace aprime::os::sys {
namespace {

constexpr std::size_t kCalls = static_cast<std::size_t>(Call::count_);
constexpr std::array<const char*, kCalls> kNames = {
    "open",     "openat2", "fstat",     "statx",           "fcntl",        "pread",     "pwrite",  "pwritev2",
    "splice",   "fsync",   "fdatasync", "sync_file_range", "ftruncate",    "fallocate", "fadvise", "mmap",
    "mprotect", "madvise", "ioctl",     "userfaultfd",     "memfd_create", "sigaction",
};

// Separate atomics rather than a locked struct: calls are made inside signal handlers. A plan is set before
// the threads that it shall hit are let loose, so that they see all of it.
constinit std::atomic<bool> planned{false};
constinit std::atomic<Call> plan_call{Call::count_};
constinit std::atomic<std::uint64_t> plan_nth{1};
constinit std::atomic<std::uint64_t> plan_times{1};
constinit std::atomic<std::uint64_t> plan_every{0};
constinit std::atomic<int> plan_error{0};
constinit std::array<std::atomic<std::uint64_t>, kCalls> made{};
constinit std::atomic<std::uint64_t> injected{0};

bool count_and_hit(Call call) noexcept {
  const std::uint64_t n = made[static_cast<std::size_t>(call)].fetch_add(1, std::memory_order_relaxed) + 1;
  if (call != plan_call.load(std::memory_order_relaxed)) return false;
  const std::uint64_t nth = plan_nth.load(std::memory_order_relaxed);
  const std::uint64_t times = plan_times.load(std::memory_order_relaxed);
  const std::uint64_t every = plan_every.load(std::memory_order_relaxed);
  if (n < nth || (times != 0 && (every == 0 ? n - nth : (n - nth) % every) >= times)) return false;
  injected.fetch_add(1, std::memory_order_relaxed);
  errno = plan_error.load(std::memory_order_relaxed);
  return true;
}

bool hit(Call call) noexcept { return planned.load(std::memory_order_relaxed) && count_and_hit(call); }

}  // namespace

void set_fault_plan(const FaultPlan& plan) noexcept {
  planned.store(false);
  for (auto& n : made) n.store(0);
  injected.store(0);
  plan_call.store(plan.call);
  plan_nth.store(plan.nth);
  plan_times.store(plan.times);
  plan_every.store(plan.every);
  plan_error.store(plan.error);
  planned.store(true);
}

void clear_fault_plan() noexcept { planned.store(false); }

std::uint64_t calls_made(Call call) noexcept { return made[static_cast<std::size_t>(call)].load(); }

std::uint64_t faults_injected() noexcept { return injected.load(); }

const char* name_of(Call call) noexcept {
  return call < Call::count_ ? kNames[static_cast<std::size_t>(call)] : "none";
}

int open(const char* path, int flags) noexcept {
  return hit(Call::open) ? -1 : ::open(path, flags | O_CLOEXEC);
}

int openat2(int directory, const char* path, const ::open_how& how) noexcept {
  if (hit(Call::openat2)) return -1;
  ::open_how closing = how;
  closing.flags |= O_CLOEXEC;
  return static_cast<int>(::syscall(SYS_openat2, directory, path, &closing, sizeof closing));
}

int fstat(int fd, struct ::stat* out) noexcept { return hit(Call::fstat) ? -1 : ::fstat(fd, out); }

int statx(int fd, unsigned mask, struct ::statx* out) noexcept {
  return hit(Call::statx) ? -1 : ::statx(fd, "", AT_EMPTY_PATH, mask, out);
}

int fcntl(int fd, int command, int argument) noexcept {
  return hit(Call::fcntl) ? -1 : ::fcntl(fd, command, argument);
}

ssize_t pread(int fd, void* into, std::size_t size, std::int64_t at) noexcept {
  return hit(Call::pread) ? -1 : ::pread(fd, into, size, at);
}

ssize_t pwrite(int fd, const void* from, std::size_t size, std::int64_t at) noexcept {
  return hit(Call::pwrite) ? -1 : ::pwrite(fd, from, size, at);
}

ssize_t pwritev2(int fd, const void* from, std::size_t size, std::int64_t at, int flags) noexcept {
  if (hit(Call::pwritev2)) return -1;
  const ::iovec part{const_cast<void*>(from), size};
  return ::pwritev2(fd, &part, 1, at, flags);
}

ssize_t splice(int fd, std::int64_t* at, int pipe, std::size_t size) noexcept {
  return hit(Call::splice) ? -1 : ::splice(fd, at, pipe, nullptr, size, SPLICE_F_NONBLOCK);
}

int fsync(int fd) noexcept { return hit(Call::fsync) ? -1 : ::fsync(fd); }

int fdatasync(int fd) noexcept { return hit(Call::fdatasync) ? -1 : ::fdatasync(fd); }

int sync_file_range(int fd, std::int64_t at, std::int64_t size, unsigned flags) noexcept {
  return hit(Call::sync_file_range) ? -1 : ::sync_file_range(fd, at, size, flags);
}

int ftruncate(int fd, std::int64_t size) noexcept {
  return hit(Call::ftruncate) ? -1 : ::ftruncate(fd, size);
}

int fallocate(int fd, int mode, std::int64_t at, std::int64_t size) noexcept {
  return hit(Call::fallocate) ? -1 : ::fallocate(fd, mode, at, size);
}

int fadvise(int fd, std::int64_t at, std::int64_t size, int advice) noexcept {
  if (hit(Call::fadvise)) return -1;
  const int error = ::posix_fadvise(fd, at, size, advice);
  if (error == 0) return 0;
  errno = error;
  return -1;
}

void* mmap(void* address, std::size_t size, int protection, int flags, int fd, std::int64_t at) noexcept {
  return hit(Call::mmap) ? MAP_FAILED : ::mmap(address, size, protection, flags, fd, at);
}

int mprotect(void* address, std::size_t size, int protection) noexcept {
  return hit(Call::mprotect) ? -1 : ::mprotect(address, size, protection);
}

int madvise(void* address, std::size_t size, int advice) noexcept {
  return hit(Call::madvise) ? -1 : ::madvise(address, size, advice);
}

int ioctl(int fd, unsigned long request, void* argument) noexcept {
  return hit(Call::ioctl) ? -1 : ::ioctl(fd, request, argument);
}

int userfaultfd(int flags) noexcept {
  return hit(Call::userfaultfd) ? -1 : static_cast<int>(::syscall(SYS_userfaultfd, flags));
}

int memfd_create(const char* name, unsigned flags) noexcept {
  return hit(Call::memfd_create) ? -1 : ::memfd_create(name, flags);
}

int sigaction(int signal, const struct ::sigaction* action, struct ::sigaction* old) noexcept {
  return hit(Call::sigaction) ? -1 : ::sigaction(signal, action, old);
}

}  // namespace aprime::os::sys
