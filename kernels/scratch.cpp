#include "kernels/scratch.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "aprime/error.hpp"

namespace aprime::kernels {
namespace {

int make_unnamed_file(ByteCount size) {
  const int fd = ::memfd_create("aprime-scratch", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(size.value)) != 0) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    const char* const remedy = error == EMFILE ? "; raise the limit of this process (ulimit -n)" : "";
    throw Error(Errc::resources, std::string("no scratch memory: ") + std::strerror(error) + remedy, {},
                error);
  }
  return fd;
}

Mapping map_descriptor(Runtime& runtime, int fd) {
  try {
    return runtime.map("/proc/self/fd/" + std::to_string(fd), Access::read_write);
  } catch (...) {
    ::close(fd);
    throw;
  }
}

}  // namespace

Scratch::Scratch(Runtime& runtime, ByteCount size)
    : fd_(make_unnamed_file(size)), mapping_(map_descriptor(runtime, fd_)) {}

Scratch::~Scratch() {
  // The last descriptor frees the memory; the mapping has one of its own.
  ::close(fd_);
}

}  // namespace aprime::kernels
