#pragma once

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <span>

#include "host/mount/fuse.hpp"
#include "host/mount/inode_table.hpp"
#include "host/os/open_file.hpp"
#include "host/os/page_pipe.hpp"

namespace aprime::mount {

/// Whether the kernel's own pages of a file can be kept coherent. Before Linux 6.16 a page being written back
/// was copied first, so that an invalidation ended before the bytes that were stored to it had arrived; and a
/// write past the pages could leave old ones behind.
bool keeps_pages_coherent() noexcept;

class Source;

/// A regular file that a program has open.
struct OpenHandle {
  os::OpenFile file;
  /// How much of the file's failed writebacks this program has heard of.
  engine::WritebackErrors::Seen errors_seen = 0;
  /// Inode::stored_by, where it may be mapped to be stored to.
  std::shared_ptr<const char> stores_to{};
};

/// \pre `info` is of an open regular file
OpenHandle& handle_of(const fuse_file_info& info) noexcept;

/// A request for bytes, as the kernel tells it.
struct ByteRequest {
  off_t at;
  /// For the kernel's page cache: the page is locked until the reply.
  bool is_page;
  bool is_direct;
  bool appends;
  /// By somebody whose write ends set-user-id bits.
  bool ends_privileges;
  /// Of a write by a program: what shall be on the disk before the reply. 0, RWF_DSYNC (its bytes) or
  /// RWF_SYNC (its attributes, too).
  int sync;
  HostAccess how;
};

/// The bytes for a read. Nothing of the file's: with the reply, the kernel may have it closed and forgotten.
/// Pages in the pipe are the source's: what changes in them until then is no older than what was asked for,
/// and a recall waits for the reply, for which the kernel has its own pages locked.
struct FoundBytes {
  std::size_t size = 0;
  /// In the pipe, not in memory.
  bool in_pages = false;
};

// What programs ask of a file's bytes, served by the runtime where it keeps the file coherent with devices,
// and by the source otherwise. Each returns 0 or an errno.

/// \pre nothing is found yet, and `pages` empty
int read_bytes(const Inode& inode, const OpenHandle& handle, const ByteRequest& request,
               std::span<std::byte> into, os::PagePipe& pages, FoundBytes* found);
int write_bytes(const Inode& inode, OpenHandle& handle, const ByteRequest& request,
                std::span<const std::byte> from, std::size_t* put);
/// `handle`: what the size is set by; null where a name is.
int set_size(const Inode& inode, const OpenHandle* handle, off_t size);
/// `mode` as for fallocate.
int allocate_bytes(const Inode& inode, const OpenHandle& handle, int mode, off_t at, off_t size);
int sync_bytes(const Inode& inode, OpenHandle& handle, bool data_only);
/// Brings what programs have stored by mmap, and what only a device has, to the source. Not for a request
/// that changes the size, during which the kernel holds back the former.
int bring_home(const Source& source, const Inode& inode);
/// EXDEV where the kernel shall copy by reading and writing.
int copy_bytes(const Inode& inode, const OpenHandle& handle, off_t at, const Inode& to_inode,
               const OpenHandle& to, off_t to_at, std::size_t size, std::size_t* copied);

}  // namespace aprime::mount
