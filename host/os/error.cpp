#include "aprime/error.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <system_error>

#include "host/os/failure.hpp"

namespace aprime {

Error::Error(Errc code, std::string message, std::string path, int system_error, ByteOffset offset)
    : std::runtime_error(message),
      code_(code),
      system_error_(system_error),
      path_(std::move(path)),
      offset_(offset) {}

namespace os {

Error failure(Errc code, std::string_view what, int system_error, std::string path) {
  const char* const remedy = system_error == EMFILE ? "; raise the limit of this process (ulimit -n)" : "";
  return Error(code, fmt::format("{}: {}{}", what, std::generic_category().message(system_error), remedy),
               std::move(path), system_error);
}

Errc file_errc(int system_error) noexcept {
  switch (system_error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:  // more than the limit on file sizes, which can be raised
      return Errc::no_space;
    case ENOMEM:
    case EMFILE:
    case ENFILE: return Errc::resources;
    case EINVAL: return Errc::invalid_argument;
    case EBADF:  // the descriptor is not open for this
    case EPERM:  // sealed, or made immutable
      return Errc::access_denied;
    default: return Errc::io;
  }
}

}  // namespace os
}  // namespace aprime
