#include "host/mount/session.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <vector>

#include "host/os/failure.hpp"
#include "host/os/sanitizers.hpp"
#include "host/os/syscalls.hpp"
#include "host/sync/mutex.hpp"

namespace aprime::mount {
namespace {

/// Shared mappings of files whose reads and writes are exact (FOPEN_DIRECT_IO). In the kernel since 6.6;
/// libfuse 3.14 has no name for it. Of the second word of INIT flags.
constexpr std::uint32_t kDirectIoAllowMmap2 = 1u << (36 - 32);

/// The request behind O_TMPFILE, since Linux 6.1; libfuse has none for it. Its message is that of FUSE_CREATE
/// for the name "/".
constexpr std::uint32_t kTmpfile = 51;

/// FUSE_NOTIFY_PRUNE: a message without a request, which the kernel obeys before the call returns; libfuse
/// has none for it.
constexpr std::int32_t kNotifyPrune = 9;
struct PruneHeaders {
  ::fuse_out_header message;
  std::uint32_t count;
  std::uint32_t padding;
  std::uint64_t spare;
};

struct MissingHeaders {
  ::fuse_out_header message;
  ::fuse_notify_inval_entry_out entry;
};

/// libfuse reports by messages only, to one function for the whole process.
class LastMessage {
 public:
  LastMessage() { ::fuse_set_log_func(&LastMessage::keep); }

  std::string get() {
    const sync::Lock lock(mutex());
    return text();
  }

 private:
  static sync::Mutex& mutex() {
    static sync::Mutex mutex(sync::LockRank::errors);
    return mutex;
  }
  static std::string& text() {
    static std::string text;
    return text;
  }
  static void keep(fuse_log_level, const char* format, va_list arguments) {
    std::array<char, 512> line{};
    static_cast<void>(std::vsnprintf(line.data(), line.size(), format, arguments));
    const sync::Lock lock(mutex());
    text() = line.data();
    while (!text().empty() && text().back() == '\n') text().pop_back();
  }
};

/// What the kernel offers in its INIT request and libfuse does not pass on.
thread_local bool offers_mmap = false;

/// What comes before the bytes of a write.
constexpr std::size_t kWriteHeaders = sizeof(::fuse_in_header) + sizeof(::fuse_write_in);
/// The kernel wants room for the largest write, and for names and attributes whatever that is.
constexpr std::size_t kRequestMax = kTransferMax + os::kPageBytes;

/// A request that follows a reply (the close of a file after its reads) is handled after it. A reply by
/// writev(2) says so by itself.
os::sanitizer::KernelOrder moved_replies;

/// Whoever waits for a request gets a signal. Nobody here would end a request for that: the kernel is told
/// so, and asks no more. (libfuse would keep each that comes after its request, and never free the last.)
void decline_interrupt(int fd, const ::fuse_in_header& interrupt) noexcept {
  const ::fuse_out_header answer{sizeof answer, -ENOSYS, interrupt.unique};
  // Fails where the request was answered meanwhile: then there is a next time.
  static_cast<void>(::write(fd, &answer, sizeof answer) == sizeof answer);
}

ssize_t read_request(int fd, void* into, std::size_t size, void*) {
  const ssize_t n = ::read(fd, into, std::min(size, kRequestMax));
  // Whoever has taken a request off the queue at the moment of the unmount gets this (fuse_dev_do_read): it
  // is the end of the connection like any other, but libfuse knows one of them only, and complains of the
  // rest.
  if (n < 0 && errno == ECONNABORTED) errno = ENODEV;
  moved_replies.after();
  if (n < static_cast<ssize_t>(sizeof(::fuse_in_header))) return n;
  ::fuse_in_header header;
  std::memcpy(&header, into, sizeof header);
  if (header.opcode == FUSE_INTERRUPT) {
    decline_interrupt(fd, header);
    errno = EAGAIN;  // nothing has come
    return -1;
  }
  if (header.opcode == kTmpfile) {
    header.opcode = FUSE_CREATE;
    std::memcpy(into, &header, sizeof header);
  }
  if (header.opcode != FUSE_INIT) return n;
  ::fuse_init_in init{};
  std::memcpy(&init, static_cast<const std::byte*>(into) + sizeof header,
              std::min(sizeof init, static_cast<std::size_t>(n) - sizeof header));
  offers_mmap = (init.flags & FUSE_INIT_EXT) != 0 && (init.flags2 & kDirectIoAllowMmap2) != 0;
  return n;
}

/// The reply to INIT is written by the thread that read the request, as its next message.
ssize_t write_reply(int fd, ::iovec* parts, int count, void*) {
  if (offers_mmap && count == 2 && parts[1].iov_len == sizeof(::fuse_init_out)) {
    offers_mmap = false;
    ::fuse_init_out init;
    std::memcpy(&init, parts[1].iov_base, sizeof init);
    init.flags |= FUSE_INIT_EXT;
    init.flags2 |= kDirectIoAllowMmap2;
    std::memcpy(parts[1].iov_base, &init, sizeof init);
  }
  return ::writev(fd, parts, count);
}

ssize_t splice_reply(int from, off_t* from_at, int fd, off_t* at, std::size_t size, unsigned flags, void*) {
  moved_replies.before();
  return ::splice(from, from_at, fd, at, size, flags);
}

class Arguments {
 public:
  Arguments(const std::string& source, const MountOptions& options) {
    add("aprime");
    std::string fsname = "fsname=";
    for (const char c : source) {
      if (c == ',' || c == '\\') fsname += '\\';
      fsname += c;
    }
    add("-o");
    add(fsname + ",subtype=aprime,default_permissions" + (options.allow_other ? ",allow_other" : ""));
  }
  ~Arguments() { ::fuse_opt_free_args(&list_); }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;
  fuse_args* get() noexcept { return &list_; }

 private:
  void add(const std::string& argument) {
    if (::fuse_opt_add_arg(&list_, argument.c_str()) != 0) throw std::bad_alloc();
  }
  fuse_args list_ = FUSE_ARGS_INIT(0, nullptr);
};

}  // namespace

RequestBuffer::RequestBuffer(bool huge)
    : memory_(os::Mapped::anonymous(huge ? os::kHugeBytes : os::kPageBytes + kRequestMax, huge)) {
  if (huge) static_cast<void>(os::sys::madvise(memory_.data(), memory_.size(), MADV_HUGEPAGE));
  request_.mem = memory_.data() + os::kPageBytes - kWriteHeaders;
}

namespace {

// Of the request that this thread is processing.
thread_local std::byte* bytes_of_request = nullptr;
thread_local os::PagePipe* pages_of_request = nullptr;
thread_local bool expects_more = false;

}  // namespace

bool RequestBuffer::process(fuse_session& session) noexcept {
  bytes_of_request = memory_.data() + os::kPageBytes;
  pages_of_request = &pages_;
  expects_more = false;
  ::fuse_session_process_buf(&session, &request_);
  return expects_more;
}

void RequestBuffer::expect_more() noexcept { expects_more = true; }

bool RequestBuffer::ends_privileges() noexcept {
  // libfuse keeps the flag to itself.
  ::fuse_write_in write;
  std::memcpy(&write, bytes_of_request - sizeof write, sizeof write);
  return (write.write_flags & FUSE_WRITE_KILL_PRIV) != 0;
}

RequestBuffer::Answer RequestBuffer::for_answer() noexcept {
  return {{bytes_of_request, kTransferMax}, *pages_of_request};
}

Session::Session(const std::string& source, const std::string& mountpoint, const MountOptions& options,
                 const fuse_lowlevel_ops& operations, void* userdata) {
  LastMessage messages;
  const auto refuse = [&](std::string_view what) {
    if (session_ != nullptr) ::fuse_session_destroy(session_);
    const std::string why = messages.get();
    throw Error(Errc::cannot_open,
                fmt::format("cannot mount on '{}': {}", mountpoint, why.empty() ? what : why), mountpoint);
  };
  if (::access("/dev/fuse", R_OK | W_OK) != 0)
    throw Error(
        Errc::cannot_open,
        fmt::format("cannot mount on '{}': /dev/fuse: {}; load the kernel's fuse module, or allow the "
                    "device to this user or container",
                    mountpoint, std::strerror(errno)),
        mountpoint, errno);
  Arguments arguments(source, options);
  session_ = ::fuse_session_new(arguments.get(), &operations, sizeof operations, userdata);
  if (session_ == nullptr) refuse("libfuse refuses the options");
  if (::fuse_session_mount(session_, mountpoint.c_str()) != 0)
    refuse("is fusermount3 installed, and may this user write to the directory?");
  constexpr fuse_custom_io kIo{write_reply, read_request, nullptr, splice_reply};
  if (::fuse_session_custom_io(session_, &kIo, ::fuse_session_fd(session_)) != 0) {
    ::fuse_session_unmount(session_);
    refuse("libfuse refuses its input and output functions");
  }
}

Session::~Session() {
  ::fuse_session_unmount(session_);
  ::fuse_session_destroy(session_);
}

bool Session::prune(std::span<const fuse_ino_t> inodes) {
  static_assert(sizeof(PruneHeaders) == 32 && sizeof(fuse_ino_t) == 8);
  std::vector<std::byte> message(sizeof(PruneHeaders) + inodes.size_bytes());
  const PruneHeaders headers{{static_cast<std::uint32_t>(message.size()), kNotifyPrune, 0},
                             static_cast<std::uint32_t>(inodes.size()),
                             0,
                             0};
  std::memcpy(message.data(), &headers, sizeof headers);
  std::ranges::copy(std::as_bytes(inodes), message.begin() + sizeof headers);
  return ::write(::fuse_session_fd(session_), message.data(), message.size()) > 0 || errno != EINVAL;
}

void Session::forget_missing(fuse_ino_t directory, std::string_view name) {
  // Not by libfuse, which complains of directories that are gone.
  std::vector<std::byte> message(sizeof(MissingHeaders) + name.size() + 1);
  const MissingHeaders headers{{static_cast<std::uint32_t>(message.size()), FUSE_NOTIFY_INVAL_ENTRY, 0},
                               {directory, static_cast<std::uint32_t>(name.size()), 0}};
  std::memcpy(message.data(), &headers, sizeof headers);
  std::ranges::copy(std::as_bytes(std::span(name)), message.begin() + sizeof headers);
  [[maybe_unused]] const ::ssize_t sent =
      ::write(::fuse_session_fd(session_), message.data(), message.size());
}

bool Session::has_ended() const noexcept {
  ::pollfd connection{::fuse_session_fd(session_), 0, 0};
  return ::poll(&connection, 1, 0) == 1 && (connection.revents & POLLERR) != 0;
}

void Session::was_unmounted() noexcept {
  // libfuse looks whether its descriptor is dead, as /dev/fuse is when the last user of a mount has gone.
  // Open files keep it alive: put a dead one in its place.
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return;
  ::close(ends[0]);
  ::dup3(ends[1], ::fuse_session_fd(session_), O_CLOEXEC);
  ::close(ends[1]);
}

}  // namespace aprime::mount
