#include "tests/mount/held_calls.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fuse.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include "host/mount/fuse.hpp"
#include "host/os/futex.hpp"

// What comes by may be inside a signal handler (the fault of an emulated device), so all of it is atomics and
// a futex.

namespace aprime::test {
namespace {

constexpr std::chrono::seconds kWaitMax{100};
constexpr std::uint64_t kEverywhere = ~std::uint64_t{0};

enum State : std::uint32_t { kArmed, kHeld, kReleased };

struct Slot {
  std::atomic<bool> is_taken{false};
  std::atomic<bool> is_armed{false};
  Moment moment{};
  std::atomic<unsigned> count{0};
  std::atomic<std::uint32_t> state{kArmed};
  std::atomic<pid_t> thread{0};
  /// Threads that look at the slot.
  std::atomic<unsigned> users{0};
};
std::array<Slot, 16> slots;
std::atomic<unsigned> armed{0};

/// What this thread's request of the kernel is about.
struct Request {
  int kind = Moment::kNoRequest;
  std::uint64_t at = kEverywhere;
  std::uint64_t size = 0;
};
thread_local constinit Request request_in_work;

bool is_in(const ByteRange& range, std::uint64_t at, std::uint64_t size) noexcept {
  return at == kEverywhere || (at < range.end().value && range.first.value < at + size);
}

/// A thread comes by.
void pass(Call call, When when, std::uint64_t at = request_in_work.at,
          std::uint64_t size = request_in_work.size) noexcept {
  if (armed.load() == 0) return;
  const int error = errno;
  const auto self = static_cast<pid_t>(::syscall(SYS_gettid));
  for (Slot& slot : slots) {
    slot.users.fetch_add(1);
    const Moment& m = slot.moment;
    if (slot.is_armed.load() && m.when == when && (m.call == call || m.call == Call::any) &&
        (m.on_behalf_of == Moment::kAnybody || m.on_behalf_of == request_in_work.kind) &&
        (m.thread == Moment::kAnybody || m.thread == self) && is_in(m.range, at, size)) {
      const unsigned n = slot.count.fetch_add(1) + 1;
      std::uint32_t expected = kArmed;
      if (n == m.nth && slot.state.compare_exchange_strong(expected, kHeld)) {
        slot.thread.store(self);
        while (slot.state.load() == kHeld) os::futex_wait(slot.state, kHeld, std::chrono::milliseconds(100));
      }
    }
    slot.users.fetch_sub(1);
  }
  errno = error;
}

template <class Until>
void wait_for(const char* what, Until until) {
  const auto deadline = std::chrono::steady_clock::now() + kWaitMax;
  while (!until()) {
    if (std::chrono::steady_clock::now() > deadline) {
      std::fprintf(stderr, "%s\n", what);
      std::_Exit(1);  // with the end of the connection, whoever waits for the mount is woken
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

char state_of(pid_t thread) {
  std::ifstream file(fmt::format("/proc/self/task/{}/stat", thread));
  std::string text;
  std::getline(file, text);
  const std::size_t name_end = text.rfind(')');
  return name_end == std::string::npos ? '?' : text.at(name_end + 2);
}

}  // namespace

Hold::Hold(const Moment& moment) : slot_(0) {
  for (; slots.at(slot_).is_taken.exchange(true); ++slot_) {
  }
  Slot& slot = slots.at(slot_);
  slot.moment = moment;
  slot.count.store(0);
  slot.thread.store(0);
  slot.state.store(kArmed);
  slot.is_armed.store(true);
  armed.fetch_add(1);
}

Hold::~Hold() {
  release();
  Slot& slot = slots.at(slot_);
  slot.is_armed.store(false);
  armed.fetch_sub(1);
  while (slot.users.load() != 0) std::this_thread::yield();
  slot.is_taken.store(false);
}

pid_t Hold::wait() const {
  const Slot& slot = slots.at(slot_);
  const std::string what =
      fmt::format("nobody came {} call {} as number {}; {} did come by",
                  slot.moment.when == When::before ? "before" : "after", static_cast<int>(slot.moment.call),
                  slot.moment.nth, slot.count.load());
  wait_for(what.c_str(), [&] { return slot.thread.load() != 0; });
  return slot.thread.load();
}

bool Hold::is_reached() const noexcept { return slots.at(slot_).thread.load() != 0; }

void Hold::release() noexcept {
  Slot& slot = slots.at(slot_);
  slot.state.store(kReleased);
  os::futex_wake_all(slot.state);
}

unsigned Hold::count() const noexcept { return slots.at(slot_).count.load(); }

void wait_until_blocked(pid_t thread) {
  wait_for("a thread that should wait for a page does not", [&] { return state_of(thread) == 'D'; });
}

void wait_until_asleep(pid_t thread, const std::function<bool()>& or_else) {
  wait_for("a thread that should wait for a granule does not",
           [&] { return or_else() || state_of(thread) == 'S'; });
}

}  // namespace aprime::test

using aprime::test::Call;
using aprime::test::kEverywhere;
using aprime::test::pass;
using aprime::test::Request;
using aprime::test::request_in_work;
using aprime::test::When;

namespace {

/// Comes by before and after a call.
class Passing {
 public:
  explicit Passing(Call call, std::uint64_t at = request_in_work.at,
                   std::uint64_t size = request_in_work.size)
      : call_(call), at_(at), size_(size) {
    pass(call_, When::before, at_, size_);
  }
  ~Passing() { pass(call_, When::after, at_, size_); }
  Passing(const Passing&) = delete;
  Passing& operator=(const Passing&) = delete;

 private:
  const Call call_;
  const std::uint64_t at_;
  const std::uint64_t size_;
};

/// Comes by when its thread has ended but for the destructors of what others keep for it
/// (pthread_key_create).
class ThreadEnd {
 public:
  ~ThreadEnd() { pass(Call::thread_end, When::before, kEverywhere, 0); }
  void is_to_come() const noexcept {}
};
thread_local ThreadEnd thread_end;

Request request_of(const void* message) noexcept {
  if (message == nullptr) return {};
  fuse_in_header header;
  std::memcpy(&header, message, sizeof header);
  const auto* argument = static_cast<const char*>(message) + sizeof header;
  Request r{.kind = static_cast<int>(header.opcode)};
  if (header.opcode == FUSE_READ || header.opcode == FUSE_WRITE) {
    fuse_read_in in;  // a write begins with the same
    std::memcpy(&in, argument, sizeof in);
    r.at = in.offset;
    r.size = in.size;
  }
  return r;
}

}  // namespace

// The linker makes these of the library's calls.
extern "C" {

long __real_syscall(long, ...);
// Hands on all six, as libc's own does, though few calls have so many: AddressSanitizer must not look.
__attribute__((no_sanitize("address"))) long __wrap_syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  std::array<long, 6> a{};
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  const auto call = [&] { return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]); };
  if (number != SYS_openat2) return call();
  const Passing passing(Call::openat2);
  return call();
}

ssize_t __real_pread(int, void*, std::size_t, off_t);
ssize_t __wrap_pread(int fd, void* into, std::size_t size, off_t at) {
  const Passing passing(Call::pread, static_cast<std::uint64_t>(at), size);
  return __real_pread(fd, into, size, at);
}

ssize_t __real_pwrite(int, const void*, std::size_t, off_t);
ssize_t __wrap_pwrite(int fd, const void* from, std::size_t size, off_t at) {
  const Passing passing(Call::pwrite, static_cast<std::uint64_t>(at), size);
  return __real_pwrite(fd, from, size, at);
}

ssize_t __real_pwritev2(int, const ::iovec*, int, off_t, int);
ssize_t __wrap_pwritev2(int fd, const ::iovec* parts, int count, off_t at, int flags) {
  const Passing passing(Call::pwrite, static_cast<std::uint64_t>(at), parts->iov_len);
  return __real_pwritev2(fd, parts, count, at, flags);
}

int __real_ioctl(int, unsigned long, ...);
int __wrap_ioctl(int fd, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  void* argument = va_arg(list, void*);
  va_end(list);
  const Passing passing(Call::ioctl, kEverywhere, 0);
  return __real_ioctl(fd, request, argument);
}

int __real_mprotect(void*, std::size_t, int);
int __wrap_mprotect(void* at, std::size_t size, int protection) {
  const Passing passing(Call::mprotect, kEverywhere, 0);
  return __real_mprotect(at, size, protection);
}

int __real_ftruncate(int, off_t);
int __wrap_ftruncate(int fd, off_t size) {
  const Passing passing(Call::ftruncate, kEverywhere, 0);
  return __real_ftruncate(fd, size);
}

int __real_fallocate(int, int, off_t, off_t);
int __wrap_fallocate(int fd, int mode, off_t at, off_t size) {
  const Passing passing(Call::fallocate, static_cast<std::uint64_t>(at), static_cast<std::uint64_t>(size));
  return __real_fallocate(fd, mode, at, size);
}

int __real_fdatasync(int);
int __wrap_fdatasync(int fd) {
  const Passing passing(Call::fdatasync, kEverywhere, 0);
  return __real_fdatasync(fd);
}

int __real_fuse_lowlevel_notify_inval_inode(fuse_session*, fuse_ino_t, off_t, off_t);
int __wrap_fuse_lowlevel_notify_inval_inode(fuse_session* session, fuse_ino_t inode, off_t at, off_t size) {
  const Passing passing(Call::invalidate, static_cast<std::uint64_t>(at), static_cast<std::uint64_t>(size));
  return __real_fuse_lowlevel_notify_inval_inode(session, inode, at, size);
}

int __real_fuse_reply_buf(fuse_req_t, const char*, std::size_t);
int __wrap_fuse_reply_buf(fuse_req_t request, const char* from, std::size_t size) {
  const Passing passing(Call::reply_bytes);
  return __real_fuse_reply_buf(request, from, size);
}

int __real_fuse_reply_data(fuse_req_t, fuse_bufvec*, fuse_buf_copy_flags);
int __wrap_fuse_reply_data(fuse_req_t request, fuse_bufvec* from, fuse_buf_copy_flags flags) {
  const Passing passing(Call::reply_pages);
  return __real_fuse_reply_data(request, from, flags);
}

int __real_fuse_reply_write(fuse_req_t, std::size_t);
int __wrap_fuse_reply_write(fuse_req_t request, std::size_t size) {
  const Passing passing(Call::reply_written);
  return __real_fuse_reply_write(request, size);
}

int __real_fuse_reply_attr(fuse_req_t, const struct ::stat*, double);
int __wrap_fuse_reply_attr(fuse_req_t request, const struct ::stat* attributes, double seconds) {
  const Passing passing(Call::reply_attributes);
  return __real_fuse_reply_attr(request, attributes, seconds);
}

int __real_fuse_reply_err(fuse_req_t, int);
int __wrap_fuse_reply_err(fuse_req_t request, int error) {
  const Passing passing(Call::reply_error);
  return __real_fuse_reply_err(request, error);
}

void __real_fuse_session_process_buf(fuse_session*, const fuse_buf*);
void __wrap_fuse_session_process_buf(fuse_session* session, const fuse_buf* message) {
  thread_end.is_to_come();
  request_in_work = request_of(message->mem);
  {
    const Passing passing(Call::request);
    __real_fuse_session_process_buf(session, message);
  }
  request_in_work = {};
}

}  // extern "C"
