#include "kernels/plain_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kernels/session.hpp"

namespace aprime::kernels {
namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
  throw InputError(path + ": " + what + " to verify the result: " + std::strerror(errno));
}

}  // namespace

PlainFile::PlainFile(const RunFile& file)
    : file_(file), fd_(::open(file.path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (fd_ < 0) fail(file.path, "cannot open");
}

PlainFile::~PlainFile() { ::close(fd_); }

void PlainFile::seek(std::uint64_t offset) {
  if (::lseek(fd_, static_cast<off_t>(offset), SEEK_SET) < 0) fail(file_.path, "cannot seek");
  at_ = offset;
}

std::size_t PlainFile::next(std::span<std::byte> into) {
  into = into.first(std::min<std::uint64_t>(into.size(), file_.size.value - std::min(at_, file_.size.value)));
  for (std::size_t done = 0; done < into.size();) {
    const ssize_t got = ::read(fd_, into.data() + done, into.size() - done);
    if (got == 0) throw InputError(file_.path + ": has become shorter; the result cannot be verified");
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(file_.path, "cannot read");
    done += static_cast<std::size_t>(got);
  }
  at_ += into.size();
  return into.size();
}

}  // namespace aprime::kernels
