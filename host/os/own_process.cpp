#include "host/os/own_process.hpp"

#include <sys/mman.h>

#include <cerrno>

#include "host/os/failure.hpp"
#include "host/os/syscalls.hpp"

namespace aprime::os {

OwnProcess::OwnProcess() : mark_(Mapped::reserved(kPageBytes)) {
  if (sys::madvise(mark_.data(), mark_.size(), MADV_WIPEONFORK) != 0)
    throw failure(Errc::resources, "cannot prepare for fork()", errno);
  *mark_.data() = std::byte{1};
}

}  // namespace aprime::os
