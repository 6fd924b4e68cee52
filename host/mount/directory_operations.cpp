// Listing directories.

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "host/mount/source.hpp"
#include "host/sync/mutex.hpp"

namespace aprime::mount {
namespace {

/// A directory that a program has open.
class OpenDirectory final : public Opened {
 public:
  OpenDirectory(DIR* stream, std::uint64_t device) noexcept : stream_(stream), device_(device) {}
  ~OpenDirectory() override { ::closedir(stream_); }
  OpenDirectory(const OpenDirectory&) = delete;
  OpenDirectory& operator=(const OpenDirectory&) = delete;

  /// Of its file system.
  std::uint64_t device() const noexcept { return device_; }
  int descriptor() const noexcept { return ::dirfd(stream_); }

  /// Calls `add(entry, next_offset)` from `offset` on, until it returns false (the entry is then seen again
  /// by the next call) or the directory ends. Returns 0 or an errno.
  template <class Fn>
  int list(off_t offset, Fn&& add) {
    const sync::Lock lock(mutex_);
    off_t at = offset;
    if (at != next_) ::seekdir(stream_, at);
    next_ = kUnknown;  // should `add` throw
    for (;;) {
      errno = 0;
      const dirent* entry = ::readdir(stream_);
      if (entry == nullptr && errno != 0) return errno;
      if (entry == nullptr || !add(*entry, entry->d_off)) {
        if (entry != nullptr) ::seekdir(stream_, at);
        next_ = at;
        return 0;
      }
      at = entry->d_off;
    }
  }

 private:
  static constexpr off_t kUnknown = -1;

  DIR* const stream_;
  const std::uint64_t device_;
  sync::Mutex mutex_{sync::LockRank::open_directory};
  off_t next_ APRIME_GUARDED_BY(mutex_) = 0;
};

OpenDirectory& directory_of(const fuse_file_info& info) noexcept { return opened_as<OpenDirectory>(info); }

void open_directory(fuse_req_t request, fuse_ino_t id, fuse_file_info* info) {
  answer(request, [&](Source& source) {
    os::Descriptor opened;
    struct ::stat attributes {};
    int error = source.with_room([&] { return source.inode(id).node.open(O_RDONLY | O_DIRECTORY, &opened); });
    if (error == 0) error = source.inode(id).node.stat(&attributes);
    if (error != 0) return error;
    DIR* const stream = ::fdopendir(opened.get());
    if (stream == nullptr) return errno;
    static_cast<void>(opened.release());  // the stream's now
    auto directory = std::make_unique<OpenDirectory>(stream, attributes.st_dev);
    const Opened& kept = *directory;
    source.keep(std::move(directory));
    info->fh = reinterpret_cast<std::uint64_t>(&kept);
    if (::fuse_reply_open(request, info) != 0) source.close(kept);
    return kReplied;
  });
}

void release_directory(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  answer(request, [&](Source& source) {
    source.close(directory_of(*info));
    return 0;
  });
}

void sync_directory(fuse_req_t request, fuse_ino_t, int data_only, fuse_file_info* info) {
  answer(request, [&](Source&) {
    const int fd = directory_of(*info).descriptor();
    return (data_only != 0 ? ::fdatasync(fd) : ::fsync(fd)) == 0 ? 0 : errno;
  });
}

void read_directory(fuse_req_t request, fuse_ino_t, std::size_t room, off_t offset, fuse_file_info* info) {
  answer(request, [&](Source& source) {
    OpenDirectory& directory = directory_of(*info);
    std::vector<char> reply(room);
    std::size_t used = 0;
    const int error = directory.list(offset, [&](const dirent& entry, off_t next) {
      struct ::stat attributes {};
      attributes.st_ino = source.shown_number(directory.device(), entry.d_ino);
      attributes.st_mode = static_cast<mode_t>(entry.d_type) << 12;
      const std::size_t size =
          ::fuse_add_direntry(request, reply.data() + used, room - used, entry.d_name, &attributes, next);
      if (size > room - used) return false;
      used += size;
      return true;
    });
    // What was listed before a failure is told; the failure, by the next call.
    if (error != 0 && used == 0) return error;
    ::fuse_reply_buf(request, reply.data(), used);
    return kReplied;
  });
}

/// Entries that a reply gives to the kernel, each with one lookup; taken back if the reply is not sent.
class GivenEntries {
 public:
  explicit GivenEntries(Source& source) noexcept : source_(source) {}
  ~GivenEntries() {
    for (const fuse_entry_param& entry : entries_) source_.take_back(entry);
  }
  GivenEntries(const GivenEntries&) = delete;
  GivenEntries& operator=(const GivenEntries&) = delete;

  void add(const fuse_entry_param& entry) {
    try {
      entries_.push_back(entry);
    } catch (...) {
      source_.take_back(entry);
      throw;
    }
  }
  void drop_last() noexcept {
    source_.take_back(entries_.back());
    entries_.pop_back();
  }
  void were_taken() noexcept { entries_.clear(); }

 private:
  Source& source_;
  std::vector<fuse_entry_param> entries_;
};

bool is_dot(const char* name) noexcept { return std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0; }

void read_directory_plus(fuse_req_t request, fuse_ino_t id, std::size_t room, off_t offset,
                         fuse_file_info* info) {
  answer(request, [&](Source& source) {
    Inode& parent = source.inode(id);
    OpenDirectory& directory = directory_of(*info);
    std::vector<char> reply(room);
    std::size_t used = 0;
    GivenEntries given(source);
    const int error = directory.list(offset, [&](const dirent& entry, off_t next) {
      fuse_entry_param found{};
      // An entry that cannot be looked up (just removed, no descriptors left), or for which others would have
      // to be forgotten, is listed without attributes; the kernel looks it up when it is used.
      const bool is_found = !is_dot(entry.d_name) && !source.inodes().is_crowded() &&
                            source.look_up(parent, entry.d_name, &found) == 0;
      if (is_found) {
        given.add(found);
      } else {
        found = {};
        found.attr.st_ino = source.shown_number(directory.device(), entry.d_ino);
        found.attr.st_mode = static_cast<mode_t>(entry.d_type) << 12;
      }
      const std::size_t size =
          ::fuse_add_direntry_plus(request, reply.data() + used, room - used, entry.d_name, &found, next);
      if (size > room - used) {
        if (is_found) given.drop_last();
        return false;
      }
      used += size;
      return true;
    });
    if (error != 0 && used == 0) return error;
    if (::fuse_reply_buf(request, reply.data(), used) == 0) given.were_taken();
    return kReplied;
  });
}

}  // namespace

void add_directory_operations(fuse_lowlevel_ops& table) noexcept {
  table.opendir = open_directory;
  table.releasedir = release_directory;
  table.fsyncdir = sync_directory;
  table.readdir = read_directory;
  table.readdirplus = read_directory_plus;
}

}  // namespace aprime::mount
