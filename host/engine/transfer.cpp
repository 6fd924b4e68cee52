#include "host/engine/transfer.hpp"

#include <algorithm>

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
    if (path_ == Path::buffered) return f.write(bytes.first, part);
    const os::File::DirectResult written = f.write_direct(bytes.first, part);
    needs_sync_ |= written.needs_sync;
    return written.status;
  }
  Status on_copy(GranuleIndex g, device::Region& region) noexcept override {
    const ByteRange bytes = clip(file_.granule().bytes_of(GranuleRange{g, GranuleCount{1}}));
    const ByteCount offset = bytes.first - file_.granule().offset_of(g);
    Counters::add(file_.host_counters().bytes_bounced, bytes.size.value);
    has_bounced_ = true;
    return direction_ == Direction::into_buffer ? region.read_copy(g, offset, buffer_for(bytes))
                                                : region.write_copy(g, offset, buffer_for(bytes));
  }
  /// Whether some of it went to the page cache that was to go to the disk.
  bool needs_sync() const noexcept { return needs_sync_; }
  bool has_bounced() const noexcept { return has_bounced_; }

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
  bool needs_sync_ = false;
  bool has_bounced_ = false;
};

Status move(CoherentFile& file, const Transfer& transfer, ByteRange range, GranuleIo& io,
            bool is_write) noexcept {
  const GranuleSize granule = file.granule();
  const GranuleRange all = granule.covering(range);
  const Event moves = is_write ? Event::io_write : Event::io_read;
  const Event bounces = is_write ? Event::bounce_write : Event::bounce_read;
  const auto perform = [&](GranuleRange run, Event event) {
    return file.perform(
        run,
        {.event = event, .requester = transfer.requester, .io = &io, .shuts_out_host = transfer.is_direct});
  };
  const HostAccess how = transfer.how;
  if (transfer.is_direct || (how == HostAccess::migrate && !is_write)) return perform(all, moves);
  if (how == HostAccess::bounce) return perform(all, bounces);

  const auto event_for = [&](GranuleIndex g) {
    if (!file.directory().load(g).state().is_device_dirty()) return moves;
    const ByteRange bytes = granule.bytes_of(GranuleRange{g, GranuleCount{1}});
    const std::uint64_t wanted =
        std::min(bytes.end().value, range.end().value) - std::max(bytes.first.value, range.first.value);
    // A write that replaces the granule whole need not copy the old bytes home first: nothing is cheaper.
    if (is_write && wanted == granule.bytes().value) return Event::discard;
    const bool bounce =
        how == HostAccess::adaptive && file.traffic().should_bounce(g, ByteCount{wanted}, granule.bytes());
    return bounce ? bounces : moves;
  };
  for (std::uint64_t g = all.first.value; g < all.end().value;) {
    const Event event = event_for(GranuleIndex{g});
    std::uint64_t end = g + 1;
    // Neighbours at home go together; those on a device are decided on one by one.
    while (event == moves && end < all.end().value &&
           !file.directory().load(GranuleIndex{end}).state().is_device_dirty())
      ++end;
    const Status status = perform({GranuleIndex{g}, GranuleCount{end - g}}, event);
    if (!status.is_ok()) return status;
    g = end;
  }
  return {};
}

}  // namespace

Status read_file(CoherentFile& file, const Transfer& transfer, std::span<std::byte> into) noexcept {
  const ByteRange range{transfer.at, ByteCount{into.size()}};
  if (range.empty()) return {};
  if (file.hides_new_size(range))
    if (const Status status = file.take_in_size(); !status.is_ok()) return status;
  BufferIo io(file, range, into.data(), Direction::into_buffer,
              transfer.is_direct ? Path::direct : Path::buffered);
  return move(file, transfer, range, io, false);
}

Status write_file(CoherentFile& file, const Transfer& transfer, std::span<const std::byte> from) noexcept {
  const ByteRange range{transfer.at, ByteCount{from.size()}};
  if (range.empty()) return {};
  if (file.hides_new_size(range))
    if (const Status status = file.take_in_size(); !status.is_ok()) return status;
  BufferIo io(file, range, const_cast<std::byte*>(from.data()), Direction::out_of_buffer,
              transfer.is_direct ? Path::direct : Path::buffered);
  const Status status = move(file, transfer, range, io, true);
  if (transfer.sets_time && io.has_bounced()) file.file().touch();
  // With no granule held: a sync may be waiting for one.
  return status.is_ok() && io.needs_sync() ? file.sync_home() : status;
}

}  // namespace aprime::engine
