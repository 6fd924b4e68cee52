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

void PlainFile::seek(std::uint64_t offset) {
  if (::lseek(fd_, static_cast<off_t>(offset), SEEK_SET) < 0) fail(path_, "cannot seek");
}

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

bool is_same_file(const std::string& path, const std::string& other) {
  struct stat info {};
  struct stat other_info {};
  return ::stat(path.c_str(), &info) == 0 && ::stat(other.c_str(), &other_info) == 0 &&
         info.st_dev == other_info.st_dev && info.st_ino == other_info.st_ino;
}

void require_two_files(const std::string& changed, const std::string& other) {
  if (is_same_file(changed, other)) {
    throw InputError(other + ": is the same file as " + changed + ", which is stored to; make a copy of it");
  }
}

}  // namespace aprime::kernels
