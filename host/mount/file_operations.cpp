// Open files: their bytes.

#include <fcntl.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "host/mount/coherent_io.hpp"
#include "host/mount/session.hpp"
#include "host/mount/source.hpp"

namespace aprime::mount {
namespace {

struct OpenedFile final : Opened {
  explicit OpenedFile(os::Descriptor opened) noexcept : handle{os::OpenFile(std::move(opened))} {}
  OpenHandle handle;
};

/// Gives the kernel an open file. A program that only reads a file of which no device has anything gets its
/// bytes from pages of the kernel's, which are recalled if a device is given the file. All other reads and
/// writes are requests to us one by one: what a device holds can be bounced, and a write never holds locked
/// pages in several granules, one of which may be waited for while another is waited for by its owner.
Opened& keep_open(Source& source, const Inode& inode, fuse_file_info& info, os::Descriptor opened) {
  auto file = std::make_unique<OpenedFile>(std::move(opened));
  bool is_coherent = false;
  {
    const ServingGate::Passed passed = inode.gate.pass();
    is_coherent = inode.coherent != nullptr;
    if (is_coherent) file->handle.errors_seen = inode.coherent->errors().now();
  }
  // By no other can a page be mapped to be stored to.
  if ((info.flags & O_ACCMODE) == O_RDWR) file->handle.stores_to = inode.stored_by;
  Opened& kept = *file;
  source.keep(std::move(file));
  info.fh = reinterpret_cast<std::uint64_t>(&kept);
  const bool is_read_only = (info.flags & O_ACCMODE) == O_RDONLY;
  info.direct_io = is_coherent || !is_read_only || !keeps_pages_coherent() ? 1 : 0;
  // The kernel drops pages itself where it learns that the file has changed.
  info.keep_cache = 1;
  return kept;
}

void open(fuse_req_t request, fuse_ino_t id, fuse_file_info* info) {
  answer(request, [&](Source& source) {
    os::Descriptor opened;
    Inode& inode = source.inode(id);
    const int error = source.with_room([&] { return inode.node.open(backing_flags(info->flags), &opened); });
    if (error != 0) return error;
    const Opened& kept = keep_open(source, inode, *info, std::move(opened));
    if (::fuse_reply_open(request, info) != 0) source.close(kept);
    return kReplied;
  });
}

void release(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  answer(request, [&](Source& source) {
    source.close(opened_as<OpenedFile>(*info));
    return 0;
  });
}

void reply_found(fuse_req_t request, const FoundBytes& found, const RequestBuffer::Answer& answer) {
  if (!found.in_pages) {
    ::fuse_reply_buf(request, reinterpret_cast<const char*>(answer.bytes.data()), found.size);
    return;
  }
  fuse_bufvec pages{};
  pages.count = 1;
  pages.buf[0].size = found.size;
  pages.buf[0].flags = FUSE_BUF_IS_FD;
  pages.buf[0].fd = answer.pages.descriptor();
  ::fuse_reply_data(request, &pages, fuse_buf_copy_flags{});
  answer.pages.clear();
  // The kernel reads ahead for a program that works through the file.
  RequestBuffer::expect_more();
}

void read(fuse_req_t request, fuse_ino_t id, std::size_t size, off_t at, fuse_file_info* info) {
  answer(request, [&](Source& source) {
    const RequestBuffer::Answer answer = RequestBuffer::for_answer();
    const std::span into = answer.bytes.first(std::min(size, kTransferMax));
    // A read by a program carries its owner's locks; one by the kernel for its page cache has no owner.
    const ByteRequest wanted{.at = at,
                             .is_page = info->lock_owner == 0,
                             .is_direct = (info->flags & O_DIRECT) != 0,
                             .appends = false,
                             .ends_privileges = false,
                             .sync = 0,
                             .how = source.runtime().host_access()};
    FoundBytes found;
    const int error = read_bytes(source.inode(id), handle_of(*info), wanted, into, answer.pages, &found);
    if (error != 0) return error;
    reply_found(request, found, answer);
    return kReplied;
  });
}

/// Those of the file and those of the one write (RWF_DSYNC) the kernel tells alike.
int sync_flags(int flags) noexcept {
  // O_SYNC is O_DSYNC and one more.
  return (flags & O_SYNC) == O_SYNC ? RWF_SYNC : (flags & O_DSYNC) != 0 ? RWF_DSYNC : 0;
}

void write(fuse_req_t request, fuse_ino_t id, const char* from, std::size_t size, off_t at,
           fuse_file_info* info) {
  answer(request, [&](Source& source) {
    const std::span bytes(reinterpret_cast<const std::byte*>(from), size);
    // A page that was stored to by mmap has its place, whatever the file that the kernel sends it by is open
    // for.
    const bool is_page = info->writepage != 0;
    const ByteRequest wanted{.at = at,
                             .is_page = is_page,
                             .is_direct = !is_page && (info->flags & O_DIRECT) != 0,
                             .appends = !is_page && (info->flags & O_APPEND) != 0,
                             .ends_privileges = RequestBuffer::ends_privileges(),
                             .sync = is_page ? 0 : sync_flags(info->flags),
                             .how = source.runtime().host_access()};
    std::size_t put = 0;
    const int error = write_bytes(source.inode(id), handle_of(*info), wanted, bytes, &put);
    if (error != 0 && put == 0) return error;
    ::fuse_reply_write(request, put);
    return kReplied;
  });
}

void flush(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  answer(request, [&](Source&) { return handle_of(*info).file.flush(); });
}

void sync(fuse_req_t request, fuse_ino_t id, int data_only, fuse_file_info* info) {
  answer(request,
         [&](Source& source) { return sync_bytes(source.inode(id), handle_of(*info), data_only != 0); });
}

void allocate(fuse_req_t request, fuse_ino_t id, int mode, off_t at, off_t size, fuse_file_info* info) {
  answer(request,
         [&](Source& source) { return allocate_bytes(source.inode(id), handle_of(*info), mode, at, size); });
}

void seek(fuse_req_t request, fuse_ino_t id, off_t at, int whence, fuse_file_info* info) {
  answer(request, [&](Source& source) {
    // What was stored to a hole is one in the source until then.
    int error = bring_home(source, source.inode(id));
    off_t found = 0;
    if (error == 0) error = handle_of(*info).file.seek(at, whence, &found);
    if (error != 0) return error;
    ::fuse_reply_lseek(request, found);
    return kReplied;
  });
}

void copy_range(fuse_req_t request, fuse_ino_t id, off_t at, fuse_file_info* info, fuse_ino_t to_id,
                off_t to_at, fuse_file_info* to, std::size_t size, int) {
  answer(request, [&](Source& source) {
    std::size_t copied = 0;
    const int error = copy_bytes(source.inode(id), handle_of(*info), at, source.inode(to_id), handle_of(*to),
                                 to_at, size, &copied);
    if (error != 0) return error;
    ::fuse_reply_write(request, copied);
    return kReplied;
  });
}

}  // namespace

OpenHandle& handle_of(const fuse_file_info& info) noexcept { return opened_as<OpenedFile>(info).handle; }

int backing_flags(int flags) noexcept {
  constexpr int kKept = O_ACCMODE | O_SYNC | O_DSYNC | O_NOATIME;
  return flags & kKept;
}

int reply_create(fuse_req_t request, Source& source, const fuse_entry_param& entry, os::Descriptor opened,
                 fuse_file_info& info) {
  const Opened* kept = nullptr;
  try {
    kept = &keep_open(source, source.inode(entry.ino), info, std::move(opened));
  } catch (...) {
    source.take_back(entry);
    throw;
  }
  if (::fuse_reply_create(request, &entry, &info) != 0) {
    source.close(*kept);
    source.take_back(entry);
  }
  return kReplied;
}

void add_file_operations(fuse_lowlevel_ops& table) noexcept {
  table.open = open;
  table.release = release;
  table.read = read;
  table.write = write;
  table.flush = flush;
  table.fsync = sync;
  table.fallocate = allocate;
  table.lseek = seek;
  table.copy_file_range = copy_range;
}

}  // namespace aprime::mount
