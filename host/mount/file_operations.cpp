// Open files: their bytes.

#include <fcntl.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "host/mount/source.hpp"
#include "host/os/open_file.hpp"

namespace aprime::mount {
namespace {

struct OpenedFile final : Opened {
  explicit OpenedFile(os::Descriptor opened) noexcept : file(std::move(opened)) {}
  const os::OpenFile file;
};

const os::OpenFile& file_of(const fuse_file_info& info) noexcept { return opened_as<OpenedFile>(info).file; }

/// Gives the kernel an open file. Every read and write of it is a request to us; nothing but `mmap` goes
/// through pages of the kernel.
Opened& keep_open(Source& source, fuse_file_info& info, os::Descriptor opened) {
  auto file = std::make_unique<OpenedFile>(std::move(opened));
  Opened& kept = *file;
  source.keep(std::move(file));
  info.fh = reinterpret_cast<std::uint64_t>(&kept);
  info.direct_io = 1;
  return kept;
}

void open(fuse_req_t request, fuse_ino_t id, fuse_file_info* info) {
  answer(request, [&](Source& source) {
    os::Descriptor opened;
    const int error = source.inode(id).node.open(backing_flags(info->flags), &opened);
    if (error != 0) return error;
    const Opened& kept = keep_open(source, *info, std::move(opened));
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

void read(fuse_req_t request, fuse_ino_t, std::size_t size, off_t at, fuse_file_info* info) {
  answer(request, [&](Source&) {
    thread_local std::vector<std::byte> buffer;
    if (buffer.size() < size) buffer.resize(size);
    std::size_t got = 0;
    const int error = file_of(*info).read(at, std::span(buffer).first(size), &got);
    if (error != 0 && got == 0) return error;
    ::fuse_reply_buf(request, reinterpret_cast<const char*>(buffer.data()), got);
    return kReplied;
  });
}

void write(fuse_req_t request, fuse_ino_t, const char* from, std::size_t size, off_t at,
           fuse_file_info* info) {
  answer(request, [&](Source&) {
    const std::span bytes(reinterpret_cast<const std::byte*>(from), size);
    std::size_t put = 0;
    // A page that was stored to by mmap has its place, whatever the file that the kernel sends it by is open
    // for.
    const bool appends = (info->flags & O_APPEND) != 0 && info->writepage == 0;
    const os::OpenFile& file = file_of(*info);
    const int error = appends ? file.append(bytes, &put) : file.write(at, bytes, &put);
    if (error != 0 && put == 0) return error;
    ::fuse_reply_write(request, put);
    return kReplied;
  });
}

void flush(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  answer(request, [&](Source&) { return file_of(*info).flush(); });
}

void sync(fuse_req_t request, fuse_ino_t, int data_only, fuse_file_info* info) {
  answer(request, [&](Source&) { return file_of(*info).sync(data_only != 0); });
}

void allocate(fuse_req_t request, fuse_ino_t, int mode, off_t at, off_t size, fuse_file_info* info) {
  answer(request, [&](Source&) { return file_of(*info).allocate(mode, at, size); });
}

void seek(fuse_req_t request, fuse_ino_t, off_t at, int whence, fuse_file_info* info) {
  answer(request, [&](Source&) {
    off_t found = 0;
    const int error = file_of(*info).seek(at, whence, &found);
    if (error != 0) return error;
    ::fuse_reply_lseek(request, found);
    return kReplied;
  });
}

void copy_range(fuse_req_t request, fuse_ino_t, off_t at, fuse_file_info* info, fuse_ino_t, off_t to_at,
                fuse_file_info* to, std::size_t size, int) {
  answer(request, [&](Source&) {
    std::size_t copied = 0;
    const int error = file_of(*info).copy_to(at, file_of(*to), to_at, size, &copied);
    if (error != 0) return error;
    ::fuse_reply_write(request, copied);
    return kReplied;
  });
}

}  // namespace

int backing_flags(int flags) noexcept {
  constexpr int kKept = O_ACCMODE | O_SYNC | O_DSYNC | O_NOATIME;
  return flags & kKept;
}

int reply_create(fuse_req_t request, Source& source, const fuse_entry_param& entry, os::Descriptor opened,
                 fuse_file_info& info) {
  const Opened* kept = nullptr;
  try {
    kept = &keep_open(source, info, std::move(opened));
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
