#include "host/engine/failure.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

namespace aprime::engine {
namespace {

std::string_view reason_and_remedy(const Status& status) {
  switch (status.code) {
    case Errc::ok: return "no error";
    case Errc::invalid_argument: return "the request can never be right";
    case Errc::cannot_open: return "the file cannot be used";
    case Errc::conflict: return "the request contradicts an existing mapping";
    case Errc::access_denied:
      if (status.system_error == EPERM)
        return "the file forbids it: it is sealed, immutable or append-only, or became so after it was "
               "mapped";
      return "the file is mapped for reading; map it with Access::read_write to store to it";
    case Errc::out_of_range:
      return "beyond the end of the file, which has become shorter than it was when it was mapped; map it "
             "again";
    case Errc::io: return "the file system reports an I/O error";
    case Errc::no_space:
      if (status.system_error == EFBIG)
        return "the file would be larger than this process, or its file system, allows; raise the limit on "
               "file sizes (ulimit -f)";
      return "the file system is full; free some space";
    case Errc::device_memory:
      return "all device memory is in use by launches; give the device more memory or lease less at once";
    case Errc::resources:
      return "out of memory or memory areas; see vm.max_map_count and the limits of the process";
    case Errc::kernel_failed: return "the kernel failed";
    case Errc::device_failed: return "the device failed";
  }
  return "unknown error";
}

bool has_place(Errc code) {
  return code == Errc::access_denied || code == Errc::out_of_range || code == Errc::io ||
         code == Errc::no_space;
}

}  // namespace

std::string describe(const Status& status, const std::string& path, std::string_view doing) {
  std::string text = fmt::format("{}: {}", path, doing);
  if (has_place(status.code)) text += fmt::format(" at offset {}", status.offset.value);
  // Of memory there is more than one kind, and a reason names the one.
  const bool is_known = status.reason != nullptr && status.code == Errc::resources;
  if (!is_known) text += fmt::format(": {}", reason_and_remedy(status));
  if (status.reason != nullptr) text += fmt::format(": {}", status.reason);
  if (status.system_error != 0) text += fmt::format(" ({})", std::strerror(status.system_error));
  return text;
}

void throw_if_failed(const Status& status, const std::string& path, std::string_view doing) {
  if (!status.is_ok())
    throw Error(status.code, describe(status, path, doing), path, status.system_error, status.offset);
}

void throw_if_not_synced(const Status& status, const std::string& path) {
  if (status.code != Errc::io && status.code != Errc::no_space) return throw_if_failed(status, path, "sync");
  throw Error(status.code, describe(status, path, "sync") + "; the bytes are kept for the next sync", path,
              status.system_error, status.offset);
}

}  // namespace aprime::engine
