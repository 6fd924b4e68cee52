#include "kernels/plain_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/session.hpp"

namespace aprime::kernels {
namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
  throw InputError(path + ": " + what + " to verify the result: " + std::strerror(errno));
}

}  // namespace

PlainFile::PlainFile(const std::string& path) : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (fd_ < 0) fail(path, "cannot open");
  struct stat info {};
  if (::fstat(fd_, &info) != 0) {
    const int error = errno;
    ::close(fd_);
    errno = error;
    fail(path, "cannot stat");
  }
  size_ = static_cast<std::uint64_t>(info.st_size);
}

PlainFile::~PlainFile() { ::close(fd_); }

std::size_t PlainFile::next(std::span<std::byte> into) {
  std::size_t done = 0;
  while (done < into.size()) {
    const ssize_t got = ::read(fd_, into.data() + done, into.size() - done);
    if (got == 0) break;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(path_, "cannot read");
    done += static_cast<std::size_t>(got);
  }
  return done;
}

}  // namespace aprime::kernels
