#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <shared_mutex>

#include "host/os/failure.hpp"
#include "host/os/file_state.hpp"
#include "host/os/syscalls.hpp"

namespace aprime::os {
namespace {

std::int64_t native(std::uint64_t n) noexcept { return static_cast<std::int64_t>(n); }

Status failed_at(std::uint64_t at, int system_error) noexcept {
  return {file_errc(system_error), system_error, ByteOffset{at}};
}

/// Reads until `into` is full or the file ends; `*got` is how far it came.
Status read_some(int fd, std::uint64_t at, std::span<std::byte> into, std::size_t alignment,
                 std::size_t* got) noexcept {
  for (*got = 0; *got < into.size();) {
    const ssize_t n = sys::pread(fd, into.data() + *got, into.size() - *got, native(at + *got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed_at(at + *got, errno);
    *got += static_cast<std::size_t>(n);
    // Direct I/O cannot go on from within a block; a file only ends there.
    if (n == 0 || *got % alignment != 0) return {};
  }
  return {};
}

Status write_all(int fd, std::uint64_t at, std::span<const std::byte> from) noexcept {
  for (std::size_t done = 0; done < from.size();) {
    const ssize_t n = sys::pwrite(fd, from.data() + done, from.size() - done, native(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed_at(at + done, n < 0 ? errno : EIO);
    done += static_cast<std::size_t>(n);
  }
  return {};
}

void zero_from(std::span<std::byte> bytes, std::size_t first) noexcept {
  if (first < bytes.size()) std::memset(bytes.data() + first, 0, bytes.size() - first);
}

/// Whether the file system, or a layer below it, refuses direct I/O rather than fails at it.
bool is_refusal(const Status& s) noexcept { return s.system_error == EINVAL || s.system_error == EOPNOTSUPP; }

}  // namespace

File::SizeResult File::size() const noexcept {
  struct ::stat s {};
  if (sys::fstat(state_->fd.load(), &s) != 0) return {failed_at(0, errno), ByteCount{0}};
  return {{}, ByteCount{static_cast<std::uint64_t>(s.st_size)}};
}

Status File::read(ByteOffset at, std::span<std::byte> into) noexcept {
  std::size_t got = 0;
  const Status status = read_some(state_->fd.load(), at.value, into, 1, &got);
  if (status.is_ok()) zero_from(into, got);
  return status;
}

template <class Put>
Status File::write_below_end(ByteOffset at, std::span<const std::byte> from, const Put& put) noexcept {
  if (access() == Access::read) return {Errc::access_denied, EBADF, at};
  const std::shared_lock lock(state_->end_gate);
  const SizeResult end = size();
  if (!end.status.is_ok()) return {end.status.code, end.status.system_error, at};
  if (at.value >= end.size.value) return {};
  const auto below_end =
      static_cast<std::size_t>(std::min<std::uint64_t>(from.size(), end.size.value - at.value));
  return put(state_->fd.load(), from.first(below_end));
}

Status File::write(ByteOffset at, std::span<const std::byte> from) noexcept {
  return write_below_end(
      at, from, [at](int fd, std::span<const std::byte> bytes) { return write_all(fd, at.value, bytes); });
}

Status File::store(ByteOffset at, std::span<const std::byte> from) noexcept {
  return write_below_end(at, from, [this, at](int fd, std::span<const std::byte> bytes) {
    return store_resident(at, bytes) ? Status{} : write_all(fd, at.value, bytes);
  });
}

bool File::store_resident(ByteOffset at, std::span<const std::byte> from) noexcept {
  // A few faults of the mapping cost as much as a call.
  constexpr std::size_t kStoredMin = std::size_t{256} << 10;
  if (from.size() < kStoredMin) return false;
  StoreWindow* const window = window_up_to(at.value + from.size());
  if (window == nullptr || !window->is_resident(at.value, from.size()) || !window->store(at.value, from))
    return false;
  // A page that was stored to lately takes a store without telling the file system.
  touch();
  return true;
}

void File::touch() noexcept {
  const std::array<::timespec, 2> times{{{0, UTIME_OMIT}, {0, UTIME_NOW}}};
  static_cast<void>(::futimens(state_->fd.load(), times.data()));
}

Status File::read_direct(ByteOffset at, std::span<std::byte> into) noexcept {
  const int fd = state_->direct_fd.load();
  if (fd < 0) return read(at, into);
  const std::size_t alignment = state_->direct_alignment.value;
  assert(at.value % alignment == 0 && into.size() % alignment == 0);
  std::size_t got = 0;
  // As `shuts_out_host` does for those who store: `dirty_again` may store to a hole.
  const std::shared_lock lock(state_->end_gate);
  const Status status = read_some(fd, at.value, into, alignment, &got);
  if (is_refusal(status)) return read(at, into);
  if (status.is_ok()) zero_from(into, got);
  return status;
}

File::DirectResult File::write_direct(ByteOffset at, std::span<const std::byte> from) noexcept {
  const int fd = state_->direct_fd.load();
  if (fd < 0 || access() == Access::read) return {write(at, from), true};
  const std::size_t alignment = state_->direct_alignment.value;
  assert(at.value % alignment == 0 && from.size() % alignment == 0);
  std::shared_lock lock(state_->end_gate);
  const SizeResult end = size();
  if (!end.status.is_ok()) return {{end.status.code, end.status.system_error, at}};
  if (at.value >= end.size.value) return {};
  const auto below_end =
      static_cast<std::size_t>(std::min<std::uint64_t>(from.size(), end.size.value - at.value));
  // A direct write of the block in which the file ends would grow it to the end of the block.
  const std::size_t whole_blocks = below_end - below_end % alignment;
  const Status status = write_all(fd, at.value, from.first(whole_blocks));
  const bool is_refused = is_refusal(status);
  if (!status.is_ok() && !is_refused) return {status};
  const std::size_t direct = is_refused ? 0 : whole_blocks;
  if (direct == below_end) return {};
  lock.unlock();
  return {write(at + ByteCount{direct}, from.first(below_end).subspan(direct)), true};
}

void File::start_writeback(ByteRange range) noexcept {
  (void)sys::sync_file_range(state_->fd.load(), native(range.first.value), native(range.size.value),
                             SYNC_FILE_RANGE_WRITE);
}

Status File::sync() noexcept {
  // Never retried after EIO: the kernel has marked the pages clean and a second call would report success.
  while (sys::fdatasync(state_->fd.load()) != 0) {
    if (errno != EINTR) return failed_at(0, errno);
  }
  return {};
}

Status File::rewrite(ByteRange part) noexcept {
  std::array<std::byte, 4 * kPageBytes> buffer;
  for (ByteOffset at = part.first; at < part.end(); at = at + ByteCount{buffer.size()}) {
    const std::lock_guard lock(state_->end_gate);
    const SizeResult size = this->size();
    if (!size.status.is_ok()) return size.status;
    const std::uint64_t end = std::min(part.end().value, size.size.value);
    if (at.value >= end) return {};
    const auto bytes = std::span(buffer).first(
        static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), end - at.value)));
    const Status status = read(at, bytes);
    if (!status.is_ok()) return status;
    const Status written = write_all(state_->fd.load(), at.value, bytes);
    if (!written.is_ok()) return written;
  }
  return {};
}

Status File::truncate(ByteCount size) noexcept {
  if (access() == Access::read) return {Errc::access_denied, EBADF, {}};
  const std::lock_guard lock(state_->end_gate);
  while (sys::ftruncate(state_->fd.load(), native(size.value)) != 0) {
    if (errno != EINTR) return failed_at(size.value, errno);
  }
  return {};
}

Status File::punch(ByteRange range) noexcept {
  if (access() == Access::read) return {Errc::access_denied, EBADF, range.first};
  if (range.empty()) return {};
  constexpr int kMode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  while (sys::fallocate(state_->fd.load(), kMode, native(range.first.value), native(range.size.value)) != 0) {
    if (errno == EINTR) continue;
    if (errno != EOPNOTSUPP && errno != ENOSYS) return failed_at(range.first.value, errno);
    static constexpr std::array<std::byte, 4 * kPageBytes> kZeros{};
    for (std::uint64_t done = 0; done < range.size.value; done += kZeros.size()) {
      const auto part =
          static_cast<std::size_t>(std::min<std::uint64_t>(kZeros.size(), range.size.value - done));
      const Status status = write(range.first + ByteCount{done}, std::span(kZeros).first(part));
      if (!status.is_ok()) return status;
    }
    break;
  }
  return {};
}

void File::advise(ByteRange range, Advice advice) noexcept {
  constexpr std::array kNative = {POSIX_FADV_NORMAL, POSIX_FADV_SEQUENTIAL, POSIX_FADV_RANDOM,
                                  POSIX_FADV_WILLNEED, POSIX_FADV_DONTNEED};
  static_assert(static_cast<std::size_t>(Advice::dont_need) + 1 == kNative.size());
  (void)sys::fadvise(state_->fd.load(), native(range.first.value), native(range.size.value),
                     kNative[static_cast<std::size_t>(advice)]);
  // Faults on a mapping do not look at the descriptor's advice: without this each of them, when the page
  // cache has not got the page, reads the disk's whole readahead (megabytes on some) around it.
  const Mapped* alias = state_->alias.load(std::memory_order_acquire);
  if (alias == nullptr || advice == Advice::will_need || advice == Advice::dont_need) return;
  const int native_map = advice == Advice::random       ? MADV_RANDOM
                         : advice == Advice::sequential ? MADV_SEQUENTIAL
                                                        : MADV_NORMAL;
  (void)sys::madvise(alias->data(), alias->size(), native_map);
}

}  // namespace aprime::os
