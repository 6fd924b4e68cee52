#pragma once

#include <linux/openat2.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace aprime::os::sys {

/// Every system call of the library that can fail for a reason outside the program, by name, for fault
/// injection. (munmap, close, futex and signal masks fail only through a defect of the caller.)
enum class Call : std::uint8_t {
  open,
  openat2,
  fstat,
  statx,
  fcntl,
  pread,
  pwrite,
  pwritev2,
  splice,
  fsync,
  fdatasync,
  sync_file_range,
  ftruncate,
  fallocate,
  fadvise,
  mmap,
  mprotect,
  madvise,
  ioctl,
  userfaultfd,
  memfd_create,
  sigaction,
  count_,  // number of calls, not a call
};

/// The fault model of this layer. A call that the plan hits does nothing and fails with the plan's errno;
/// everything else goes to the kernel. Not modelled: a call that fails after having done part of its work,
/// and data that is written wrong.
///
/// Process-wide, because the calls are; for tests only; costs one relaxed load per call when no plan is set.
struct FaultPlan {
  /// `count_`: no call fails, they are only counted.
  Call call = Call::count_;
  /// The call fails the nth time from now (1 = next), and `times` times in a row (0 = for ever).
  std::uint64_t nth = 1;
  std::uint64_t times = 1;
  int error = 0;
  /// Not 0: all this again for every so many calls from the nth on. \pre times <= every
  std::uint64_t every = 0;
};
/// Replaces the plan; counting starts anew.
void set_fault_plan(const FaultPlan& plan) noexcept;
void clear_fault_plan() noexcept;
/// Calls of this kind while a plan was set, since the latest was, and how many of them it hit. Clearing a
/// plan keeps both numbers.
std::uint64_t calls_made(Call call) noexcept;
std::uint64_t faults_injected() noexcept;
const char* name_of(Call call) noexcept;

/// Each is the call of that name (see its manual page): -1 or MAP_FAILED, and errno, on failure. `open` and
/// `openat2` add O_CLOEXEC; `statx` looks at the descriptor itself; `fadvise` gives its error in errno too.
int open(const char* path, int flags) noexcept;
int openat2(int directory, const char* path, const ::open_how& how) noexcept;
int fstat(int fd, struct ::stat* out) noexcept;
int statx(int fd, unsigned mask, struct ::statx* out) noexcept;
int fcntl(int fd, int command, int argument) noexcept;
ssize_t pread(int fd, void* into, std::size_t size, std::int64_t at) noexcept;
ssize_t pwrite(int fd, const void* from, std::size_t size, std::int64_t at) noexcept;
/// With one buffer; `flags` as RWF_APPEND.
ssize_t pwritev2(int fd, const void* from, std::size_t size, std::int64_t at, int flags) noexcept;
/// From a file to a pipe, which is not waited for.
ssize_t splice(int fd, std::int64_t* at, int pipe, std::size_t size) noexcept;
int fsync(int fd) noexcept;
int fdatasync(int fd) noexcept;
int sync_file_range(int fd, std::int64_t at, std::int64_t size, unsigned flags) noexcept;
int ftruncate(int fd, std::int64_t size) noexcept;
int fallocate(int fd, int mode, std::int64_t at, std::int64_t size) noexcept;
int fadvise(int fd, std::int64_t at, std::int64_t size, int advice) noexcept;
void* mmap(void* address, std::size_t size, int protection, int flags, int fd, std::int64_t at) noexcept;
int mprotect(void* address, std::size_t size, int protection) noexcept;
int madvise(void* address, std::size_t size, int advice) noexcept;
int ioctl(int fd, unsigned long request, void* argument) noexcept;
int userfaultfd(int flags) noexcept;
int memfd_create(const char* name, unsigned flags) noexcept;
int sigaction(int signal, const struct ::sigaction* action, struct ::sigaction* old) noexcept;

}  // namespace aprime::os::sys
