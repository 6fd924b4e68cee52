#include "host/mount/coherent_io.hpp"

#include <linux/falloc.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "host/engine/transfer.hpp"
#include "host/mount/source.hpp"
#include "host/os/kernel_version.hpp"

namespace aprime::mount {
namespace {

using coherence::AgentId;
using engine::CoherentFile;
using engine::Patience;

/// The size of the file now, up to which the runtime's tables reach.
int current_size(CoherentFile& file, std::uint64_t* size) {
  const os::File::SizeResult now = file.file().size();
  if (!now.status.is_ok()) return error_of(now.status);
  // It may have grown by its plain path.
  if (file.granule().count_for(now.size).value > file.directory().capacity().value)
    file.reserve_for_mount(now.size);
  *size = now.size.value;
  return 0;
}

/// The same; and what the file has gained by its plain path, devices do not hide. Waits for their kernels.
int size_to_use(CoherentFile& file, std::uint64_t* size) {
  if (const int error = current_size(file, size); error != 0) return error;
  return error_of(file.take_in_size());
}

bool is_aligned(CoherentFile& file, std::uint64_t at, std::span<const std::byte> buffer) noexcept {
  const std::uint64_t unit = file.file().direct_alignment().value;
  return unit != 0 && at % unit == 0 && buffer.size() % unit == 0 &&
         reinterpret_cast<std::uintptr_t>(buffer.data()) % unit == 0;
}

engine::Transfer transfer_of(CoherentFile& file, const ByteRequest& request, std::uint64_t at,
                             std::span<const std::byte> buffer) noexcept {
  return {.at = ByteOffset{at},
          .how = request.how,
          .is_direct = request.is_direct && is_aligned(file, at, buffer),
          .sets_time = true};
}

/// From how many bytes on it is faster to let the kernel take pages to the reply than to copy them to memory
/// and from there. Not for what programs read, which is not copied to whole pages.
constexpr std::size_t kMovedMin = std::size_t{32} << 10;

/// False if the bytes have to be read.
bool find_pages(int fd, const ByteRequest& request, std::size_t size, os::PagePipe& pages,
                FoundBytes* found) noexcept {
  if (!request.is_page || size < kMovedMin) return false;
  if (!pages.fill(fd, request.at, size, &found->size)) return false;
  found->in_pages = found->size > 0;
  return true;
}

/// A write by the daemon of an ordinary user has the kernel do this; root's may keep the bits, and what a
/// device may hold back is not written yet.
bool keeps_privileges(const Inode& inode) noexcept { return inode.coherent != nullptr || ::geteuid() == 0; }

int read_coherent(CoherentFile& file, const ByteRequest& request, std::span<std::byte> into,
                  os::PagePipe& pages, FoundBytes* found) {
  std::uint64_t size = 0;
  if (const int error = request.is_page ? current_size(file, &size) : size_to_use(file, &size); error != 0)
    return error;
  const auto at = static_cast<std::uint64_t>(request.at);
  if (at >= size) return 0;
  const auto part = into.first(static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), size - at)));
  Status status;
  if (request.is_page) {
    // What reaches beyond one granule is a guess of the kernel's (read-ahead), which comes back page by page
    // if it must. It may not wait: whoever has one of the granules pinned may wait for a page of another.
    const GranuleRange granules = file.granule().covering({ByteOffset{at}, ByteCount{part.size()}});
    status = file.page_in(granules, granules.count.value > 1);
    if (status.is_ok() && find_pages(file.file().descriptor(), request, part.size(), pages, found)) return 0;
    if (status.is_ok()) status = file.file().read(ByteOffset{at}, part);
  } else {
    // What programs have stored to pages that the kernel has, it has sent before it asks.
    engine::Transfer transfer = transfer_of(file, request, at, part);
    transfer.requester = AgentId::mount();
    status = engine::read_file(file, transfer, part);
  }
  if (status.is_ok()) found->size = part.size();
  return error_of(status);
}

/// The runtime may have opened the file for reading only; what programs may do with it, they know.
int let_be_written(CoherentFile& file, const OpenHandle* handle) {
  if (file.file().access() == Access::read_write) return 0;
  return file.file().make_writable(handle == nullptr ? -1 : handle->file.descriptor());
}

int write_coherent(CoherentFile& file, const OpenHandle& handle, const ByteRequest& request,
                   std::span<const std::byte> from, std::size_t* put) {
  if (const int error = let_be_written(file, &handle); error != 0) return error;
  std::uint64_t size = 0;
  if (request.is_page) {
    if (const int error = current_size(file, &size); error != 0) return error;
    const Status status = file.page_out(ByteOffset{static_cast<std::uint64_t>(request.at)}, from);
    if (status.is_ok()) *put = from.size();
    return error_of(status);
  }
  for (;;) {
    if (const int error = size_to_use(file, &size); error != 0) return error;
    const std::uint64_t at = request.appends ? size : static_cast<std::uint64_t>(request.at);
    const std::uint64_t end = at + from.size();
    Status status;
    if (end > size) {
      status = file.resize(ByteCount{end}, AgentId::cpu(), ByteCount{size});
      // The kernel has the inode locked, but the plain path, or a program's own mapping, has changed the
      // size.
      if (status.code == Errc::conflict) continue;
    }
    // Pages that the kernel has are recalled as for anybody's write: it dropped those that it had, but may
    // have asked for one again, and would send it, once it is stored to, with the bytes that it has from
    // before.
    if (status.is_ok()) status = engine::write_file(file, transfer_of(file, request, at, from), from);
    // What a program did not write is not there.
    if (!status.is_ok() && end > size)
      static_cast<void>(file.resize(ByteCount{size}, AgentId::cpu(), ByteCount{end}));
    if (status.is_ok()) *put = from.size();
    return error_of(status);
  }
}

int allocate_coherent(CoherentFile& file, const OpenHandle& handle, int mode, std::uint64_t at,
                      std::uint64_t length) {
  constexpr int kKnown = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
  if ((mode & ~kKnown) != 0) return EOPNOTSUPP;
  if (const int error = let_be_written(file, &handle); error != 0) return error;
  std::uint64_t size = 0;
  if (const int error = size_to_use(file, &size); error != 0) return error;
  const std::uint64_t end = at + length;
  if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0 && at < size) {
    const ByteRange range{ByteOffset{at}, ByteCount{std::min(end, size) - at}};
    if (const Status status = file.punch(range); !status.is_ok()) return error_of(status);
  }
  if ((mode & FALLOC_FL_PUNCH_HOLE) != 0) return 0;
  if (const int error =
          handle.file.allocate(FALLOC_FL_KEEP_SIZE, static_cast<off_t>(at), static_cast<off_t>(length));
      error != 0)
    return error;
  if ((mode & FALLOC_FL_KEEP_SIZE) != 0) return 0;
  while (end > size) {
    const Status status = file.resize(ByteCount{end}, AgentId::cpu(), ByteCount{size});
    if (status.code != Errc::conflict) return error_of(status);
    if (const int error = size_to_use(file, &size); error != 0) return error;
  }
  return 0;
}

int sync_coherent(CoherentFile& file, OpenHandle& handle, GranuleRange range, bool data_only) {
  const Status status = file.sync(range, AgentId::mount());
  const Status unheard = file.errors().take(handle.errors_seen, status);
  // The program's own descriptor as well: by each the kernel tells once what it could not write by itself.
  const int own_error = handle.file.sync(data_only);
  if (!status.is_ok()) return error_of(status);
  return unheard.is_ok() ? own_error : error_of(unheard);
}

}  // namespace

bool keeps_pages_coherent() noexcept {
  static const bool does = os::is_kernel_at_least(6, 16);
  return does;
}

int read_bytes(const Inode& inode, const OpenHandle& handle, const ByteRequest& request,
               std::span<std::byte> into, os::PagePipe& pages, FoundBytes* found) {
  const ServingGate::Passed passed = request.is_page ? inode.gate.pass() : inode.gate.pass_if_open();
  if (inode.coherent != nullptr) return read_coherent(*inode.coherent, request, into, pages, found);
  if (find_pages(handle.file.descriptor(), request, into.size(), pages, found)) return 0;
  const int error = handle.file.read(request.at, into, &found->size);
  // A page that the kernel gets less for ends the file.
  return request.is_page || found->size == 0 ? error : 0;
}

int write_bytes(const Inode& inode, OpenHandle& handle, const ByteRequest& request,
                std::span<const std::byte> from, std::size_t* put) {
  const ServingGate::Passed passed = request.is_page ? inode.gate.pass() : inode.gate.pass_if_open();
  if (request.ends_privileges && keeps_privileges(inode))
    if (const int error = handle.file.end_privileges(); error != 0) return error;
  if (inode.coherent == nullptr)
    return request.appends ? handle.file.append(from, request.sync, put)
                           : handle.file.write(request.at, from, request.sync, put);
  CoherentFile& file = *inode.coherent;
  int error = write_coherent(file, handle, request, from, put);
  if (error != 0 || request.sync == 0) return error;
  // Where an append came to lie is not told.
  const GranuleRange written =
      request.appends
          ? GranuleRange{GranuleIndex{0}, file.directory().capacity()}
          : file.granule().covering({ByteOffset{static_cast<std::uint64_t>(request.at)}, ByteCount{*put}});
  error = sync_coherent(file, handle, written, request.sync == RWF_DSYNC);
  if (error != 0) *put = 0;
  return error;
}

int set_size(const Inode& inode, const OpenHandle* handle, off_t size) {
  const ServingGate::Passed passed = inode.gate.pass();
  // A file that is open for writing may be cut whatever its mode says by now.
  if (inode.coherent == nullptr)
    return handle != nullptr ? handle->file.truncate(size) : inode.node.truncate(size);
  if (const int error = let_be_written(*inode.coherent, handle); error != 0) return error;
  std::uint64_t before = 0;
  if (const int error = current_size(*inode.coherent, &before); error != 0) return error;
  return error_of(inode.coherent->resize(ByteCount{static_cast<std::uint64_t>(size)}, AgentId::mount()));
}

int allocate_bytes(const Inode& inode, const OpenHandle& handle, int mode, off_t at, off_t size) {
  const ServingGate::Passed passed = inode.gate.pass();
  if (inode.coherent == nullptr) return handle.file.allocate(mode, at, size);
  return allocate_coherent(*inode.coherent, handle, mode, static_cast<std::uint64_t>(at),
                           static_cast<std::uint64_t>(size));
}

int sync_bytes(const Inode& inode, OpenHandle& handle, bool data_only) {
  const ServingGate::Passed passed = inode.gate.pass();
  if (inode.coherent == nullptr) return handle.file.sync(data_only);
  CoherentFile& file = *inode.coherent;
  return sync_coherent(file, handle, {GranuleIndex{0}, file.directory().capacity()}, data_only);
}

int bring_home(const Source& source, const Inode& inode) {
  if (inode.may_be_stored_to()) source.runtime().recall(inode.identity, engine::kWholeFile);
  const ServingGate::Passed passed = inode.gate.pass();
  if (inode.coherent == nullptr) return 0;
  CoherentFile& file = *inode.coherent;
  return error_of(file.write_back({GranuleIndex{0}, file.directory().capacity()}, Patience::wait));
}

int copy_bytes(const Inode& inode, const OpenHandle& handle, off_t at, const Inode& to_inode,
               const OpenHandle& to, off_t to_at, std::size_t size, std::size_t* copied) {
  const ServingGate::Passed passed = inode.gate.pass();
  const ServingGate::Passed to_passed = &inode == &to_inode ? ServingGate::Passed() : to_inode.gate.pass();
  if (inode.coherent != nullptr || to_inode.coherent != nullptr) return EXDEV;
  return handle.file.copy_to(at, to.file, to_at, size, copied);
}

}  // namespace aprime::mount
