#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "host/engine/failure.hpp"
#include "host/engine/mapping_state.hpp"
#include "host/os/trap.hpp"

namespace aprime::engine {
namespace {

/// Which way bytes go, seen from the caller's buffer.
enum class Direction : std::uint8_t { into_buffer, out_of_buffer };
enum class Path : std::uint8_t { buffered, direct };

/// Moves the caller's buffer to or from a file, granule by granule, wherever the newest bytes are.
class BufferIo final : public GranuleIo {
 public:
  /// `range` is where the buffer belongs in the file. The buffer is stored to only for
  /// Direction::into_buffer.
  BufferIo(CoherentFile& file, ByteRange range, std::byte* buffer, Direction direction, Path path) noexcept
      : file_(file), range_(range), buffer_(buffer), direction_(direction), path_(path) {}

  Status on_home(GranuleRange run) noexcept override {
    const ByteRange bytes = clip(file_.granule().bytes_of(run));
    const std::span<std::byte> part = buffer_for(bytes);
    os::File& f = file_.file();
    if (direction_ == Direction::into_buffer)
      return path_ == Path::direct ? f.read_direct(bytes.first, part) : f.read(bytes.first, part);
    return path_ == Path::direct ? f.write_direct(bytes.first, part) : f.write(bytes.first, part);
  }
  Status on_copy(GranuleIndex g, device::Region& region) noexcept override {
    const ByteRange bytes = clip(file_.granule().bytes_of(GranuleRange{g, GranuleCount{1}}));
    const ByteCount offset = bytes.first - file_.granule().offset_of(g);
    Counters::add(file_.host_counters().bytes_bounced, bytes.size.value);
    return direction_ == Direction::into_buffer ? region.read_copy(g, offset, buffer_for(bytes))
                                                : region.write_copy(g, offset, buffer_for(bytes));
  }

 private:
  ByteRange clip(ByteRange r) const noexcept {
    const std::uint64_t first = std::max(r.first.value, range_.first.value);
    const std::uint64_t end = std::min(r.end().value, range_.end().value);
    return {ByteOffset{first}, ByteCount{end - first}};
  }
  std::span<std::byte> buffer_for(ByteRange bytes) const noexcept {
    return {buffer_ + (bytes.first - range_.first).value, static_cast<std::size_t>(bytes.size.value)};
  }

  CoherentFile& file_;
  const ByteRange range_;
  std::byte* const buffer_;
  const Direction direction_;
  const Path path_;
};

/// A stand-in for a buffer that lies in trapped memory (another mapping's host pointer, a device window): the
/// I/O happens while granules are held, and a trap at that moment could wait for one of them.
class Staging {
 public:
  Staging(const std::byte* buffer, std::size_t size) {
    if (os::is_trapped(buffer, size)) copy_.resize(size);
  }
  explicit operator bool() const noexcept { return !copy_.empty(); }
  std::byte* data() noexcept { return copy_.data(); }

 private:
  std::vector<std::byte> copy_;
};

void require_aligned(CoherentFile& file, ByteRange range, const std::byte* buffer, const char* doing) {
  const std::uint64_t unit = file.file().direct_alignment().value;
  if (range.first.value % unit == 0 && range.size.value % unit == 0 &&
      reinterpret_cast<std::uintptr_t>(buffer) % unit == 0)
    return;
  throw Error(Errc::invalid_argument,
              fmt::format("{}: {}: offset {}, size {} and the buffer's address must be multiples of {}",
                          file.path(), doing, range.first.value, range.size.value, unit),
              file.path(), 0, range.first);
}

}  // namespace

Status MappingState::transfer(ByteRange range, GranuleIo& io, bool is_write, HostAccess how) noexcept {
  const GranuleSize granule = file_->granule();
  const GranuleRange all = granule.covering(range);
  const Event moves = is_write ? Event::io_write : Event::io_read;
  const Event bounces = is_write ? Event::bounce_write : Event::bounce_read;
  if (how == HostAccess::bounce) return file_->perform(all, {.event = bounces, .io = &io});
  if (how == HostAccess::migrate && !is_write) return file_->perform(all, {.event = moves, .io = &io});

  const auto event_for = [&](GranuleIndex g) {
    if (!file_->directory().load(g).state().is_device_dirty()) return moves;
    const ByteRange bytes = granule.bytes_of(GranuleRange{g, GranuleCount{1}});
    const std::uint64_t wanted =
        std::min(bytes.end().value, range.end().value) - std::max(bytes.first.value, range.first.value);
    // A write that replaces the granule whole need not copy the old bytes home first: nothing is cheaper.
    if (is_write && wanted == granule.bytes().value) return Event::discard;
    const bool bounce = how == HostAccess::adaptive &&
                        file_->traffic().should_bounce(g, ByteCount{wanted}, granule.bytes());
    return bounce ? bounces : moves;
  };
  for (std::uint64_t g = all.first.value; g < all.end().value;) {
    const Event event = event_for(GranuleIndex{g});
    std::uint64_t end = g + 1;
    // Neighbours at home go together; those on a device are decided on one by one.
    while (event == moves && end < all.end().value &&
           !file_->directory().load(GranuleIndex{end}).state().is_device_dirty())
      ++end;
    const Status status =
        file_->perform({GranuleIndex{g}, GranuleCount{end - g}}, {.event = event, .io = &io});
    if (!status.is_ok()) return status;
    g = end;
  }
  return {};
}

void MappingState::read(ByteOffset at, std::span<std::byte> into, HostAccess how) {
  const ByteRange range = in_file({at, ByteCount{into.size()}}, "read");
  if (range.empty()) return;
  require_in_file(range, "read");
  Staging staging(into.data(), into.size());
  BufferIo io(*file_, range, staging ? staging.data() : into.data(), Direction::into_buffer, Path::buffered);
  throw_if_failed(transfer(range, io, false, how), file_->path(), "read");
  if (staging) std::copy_n(staging.data(), into.size(), into.data());
}

void MappingState::write(ByteOffset at, std::span<const std::byte> from, HostAccess how) {
  require_writable("write");
  const ByteRange range = in_file({at, ByteCount{from.size()}}, "write");
  if (range.empty()) return;
  require_in_file(range, "write");
  Staging staging(from.data(), from.size());
  if (staging) std::copy(from.begin(), from.end(), staging.data());
  BufferIo io(*file_, range, staging ? staging.data() : const_cast<std::byte*>(from.data()),
              Direction::out_of_buffer, Path::buffered);
  throw_if_failed(transfer(range, io, true, how), file_->path(), "write");
}

void MappingState::read_direct(ByteOffset at, std::span<std::byte> into) {
  const ByteRange range = in_file({at, ByteCount{into.size()}}, "direct read");
  if (range.empty()) return;
  require_aligned(*file_, range, into.data(), "direct read");
  require_in_file(range, "direct read");
  BufferIo io(*file_, range, into.data(), Direction::into_buffer, Path::direct);
  const Demand demand{.event = Event::io_read, .io = &io, .shuts_out_host = true};
  throw_if_failed(file_->perform(file_->granule().covering(range), demand), file_->path(), "direct read");
}

void MappingState::write_direct(ByteOffset at, std::span<const std::byte> from) {
  require_writable("direct write");
  const ByteRange range = in_file({at, ByteCount{from.size()}}, "direct write");
  if (range.empty()) return;
  require_aligned(*file_, range, from.data(), "direct write");
  require_in_file(range, "direct write");
  BufferIo io(*file_, range, const_cast<std::byte*>(from.data()), Direction::out_of_buffer, Path::direct);
  const Demand demand{.event = Event::io_write, .io = &io, .shuts_out_host = true};
  throw_if_failed(file_->perform(file_->granule().covering(range), demand),
                  file_->path(), "direct write");
}

}  // namespace aprime::engine
