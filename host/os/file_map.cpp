#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <mutex>
#include <new>
#include <optional>
#include <utility>

#include "host/os/failure.hpp"
#include "host/os/file_state.hpp"
#include "host/os/syscalls.hpp"

namespace aprime::os {
namespace {

/// What was not written is mapped once more by parts of this size,
constexpr std::uint64_t kPartBytes = std::uint64_t{64} << 20;
/// and for so much of them others wait who write, or move the end.
constexpr std::uint64_t kStretchBytes = std::uint64_t{2} << 20;

/// Maps part of a file shared and keeps it out of children; empty, and errno, on failure.
Mapped map(int fd, std::uint64_t at, std::size_t size, int protection) noexcept {
  void* base =
      sys::mmap(nullptr, size, protection, MAP_SHARED | MAP_NORESERVE, fd, static_cast<std::int64_t>(at));
  if (base == MAP_FAILED) return {};
  Mapped mapped(static_cast<std::byte*>(base), size);
  if (sys::madvise(base, size, MADV_DONTFORK) == 0) return mapped;
  const int error = errno;
  mapped = Mapped();
  errno = error;
  return {};
}

}  // namespace

std::span<const std::byte> File::alias() const noexcept {
  const Mapped* newest = state_->alias.load(std::memory_order_acquire);
  return newest == nullptr ? std::span<const std::byte>{} : newest->bytes();
}

void File::extend_alias(ByteCount size) noexcept {
  const std::lock_guard lock(state_->mutex);
  const std::size_t covered = alias().size();
  if (size.value <= covered) return;
  // At least doubled, so that a file that grows by small steps leaves few old mappings behind. Past its end
  // there is nothing that the kernel would copy from.
  const std::size_t wanted = std::max<std::size_t>(size.value, covered * 2);
  try {
    Mapped larger = map(state_->fd.load(), 0, wanted, PROT_READ);
    if (!larger) return;
    state_->aliases.push_front(std::move(larger));
  } catch (const std::bad_alloc&) {
    return;
  }
  state_->alias.store(&state_->aliases.front(), std::memory_order_release);
}

StoreWindow* File::window_up_to(std::uint64_t end) noexcept {
  const auto covering = [&] {
    StoreWindow* const newest = state_->window.load(std::memory_order_acquire);
    return newest != nullptr && newest->size() >= end ? newest : nullptr;
  };
  if (StoreWindow* const window = covering()) return window;
  if (state_->has_no_window.load()) return nullptr;
  const std::lock_guard lock(state_->mutex);
  if (StoreWindow* const window = covering()) return window;
  const StoreWindow* const newest = state_->window.load();
  const std::size_t wanted = std::max<std::size_t>(end, newest == nullptr ? 0 : newest->size() * 2);
  try {
    Mapped memory = map(state_->fd.load(), 0, wanted, PROT_READ | PROT_WRITE);
    if (memory) {
      state_->windows.emplace_front(std::move(memory));
      state_->window.store(&state_->windows.front(), std::memory_order_release);
      return &state_->windows.front();
    }
  } catch (const std::exception&) {
  }
  state_->has_no_window.store(true);
  return nullptr;
}

Status File::dirty_again(ByteRange range) noexcept {
  // It has written nothing.
  if (access() == Access::read) return {};
  const SizeResult size = this->size();
  if (!size.status.is_ok()) return size.status;
  const std::uint64_t end = std::min(range.end().value, size.size.value);
  for (std::uint64_t at = range.first.value; at < end; at += kPartBytes) {
    const Status status = dirty_part({ByteOffset{at}, ByteCount{std::min(kPartBytes, end - at)}});
    if (!status.is_ok()) return status;
  }
  return {};
}

Status File::dirty_part(ByteRange part) noexcept {
  // One of its own: the window that stores use may be missing for good.
  std::optional<StoreWindow> window;
  try {
    Mapped memory = map(state_->fd.load(), part.first.value, part.size.value, PROT_READ | PROT_WRITE);
    // Nobody has a pointer to a file that cannot be mapped.
    if (!memory && errno == ENODEV) return rewrite(part);
    if (!memory) return {Errc::resources, errno, part.first};
    window.emplace(std::move(memory));
  } catch (const std::exception&) {
    return {Errc::resources, ENOMEM, part.first};
  }
  std::uint64_t refused = part.end().value;
  for (std::uint64_t at = part.first.value; at < part.end().value;) {
    // Keeps direct writes away: to dirty a page of theirs would put its old bytes in the place of theirs.
    const std::lock_guard lock(state_->end_gate);
    const SizeResult size = this->size();
    if (!size.status.is_ok()) return size.status;
    const std::uint64_t end = std::min({part.end().value, size.size.value, at + kStretchBytes});
    if (at >= end) return {};
    const std::uint64_t into_part = at - part.first.value;
    at = part.first.value + window->dirty_again(into_part, static_cast<std::size_t>(end - at));
    if (at == end) continue;
    // The first time, the file may have become shorter.
    if (std::exchange(refused, at) == at) return why_refused(ByteOffset{at});
  }
  return {};
}

Status File::why_refused(ByteOffset page) noexcept {
  // What a store needs, and a call that says what is wrong with it.
  const auto at = static_cast<std::int64_t>(page.value);
  const bool is_told = sys::fallocate(state_->fd.load(), FALLOC_FL_KEEP_SIZE, at, kPageBytes) != 0 &&
                       errno != EINTR && errno != EOPNOTSUPP && errno != ENOSYS;
  const int error = is_told ? errno : EIO;
  return {file_errc(error), error, page};
}

Mapped File::map_shared(ByteRange range, Access access) {
  assert(range.first.value % kPageBytes == 0 && !range.empty());
  const int protection = access == Access::read ? PROT_READ : PROT_READ | PROT_WRITE;
  Mapped mapped = map(state_->fd.load(), range.first.value, range.size.value, protection);
  if (mapped) return mapped;
  const int error = errno;
  switch (error) {
    case ENODEV:
      throw Error(
          Errc::cannot_open,
          fmt::format("cannot map '{}': its file system cannot map files; copy it to one that can", path()),
          path(), error, range.first);
    case EACCES:
    case EPERM:
      throw Error(
          Errc::cannot_open,
          fmt::format("cannot map '{}' with these rights: it is not open for writing, or sealed", path()),
          path(), error, range.first);
    default:
      throw failure(Errc::resources,
                    fmt::format("cannot map {} bytes of '{}' (raise vm.max_map_count or ulimit -v?)",
                                range.size.value, path()),
                    error, path());
  }
}

}  // namespace aprime::os
