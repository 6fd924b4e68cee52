#include "host/os/page_pipe.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "host/os/syscalls.hpp"

namespace aprime::os {

bool PagePipe::open() noexcept {
  if (out_) return true;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return false;
  Descriptor out(ends[0]), in(ends[1]);
  // A page each, and twice as many: bytes that begin within a page have one page more.
  if (::fcntl(in.get(), F_SETPIPE_SZ, static_cast<int>(2 * kBytesMax)) < 0) return false;
  out_ = std::move(out);
  in_ = std::move(in);
  return true;
}

bool PagePipe::fill(int fd, off_t at, std::size_t size, std::size_t* got) noexcept {
  if (size > kBytesMax || !open()) return false;
  std::int64_t next = at;
  for (*got = 0; *got < size;) {
    const ssize_t n = sys::splice(fd, &next, in_.get(), size - *got);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) return true;
    if (n < 0) {
      clear();
      return false;
    }
    *got += static_cast<std::size_t>(n);
  }
  return true;
}

void PagePipe::clear() noexcept {
  int rest = 0;
  if (!out_ || (::ioctl(out_.get(), FIONREAD, &rest) == 0 && rest == 0)) return;
  out_ = Descriptor();
  in_ = Descriptor();
}

}  // namespace aprime::os
