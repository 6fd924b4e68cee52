#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "host/engine/failure.hpp"
#include "host/engine/mapping_state.hpp"
#include "host/engine/transfer.hpp"
#include "host/os/trap.hpp"

namespace aprime::engine {
namespace {

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

void MappingState::read(ByteOffset at, std::span<std::byte> into, HostAccess how) {
  const ByteRange range = in_file({at, ByteCount{into.size()}}, "read");
  if (range.empty()) return;
  require_in_file(range, "read");
  Staging staging(into.data(), into.size());
  const std::span<std::byte> target = staging ? std::span(staging.data(), into.size()) : into;
  throw_if_failed(read_file(*file_, {.at = range.first, .how = how}, target), file_->path(), "read");
  if (staging) std::copy_n(staging.data(), into.size(), into.data());
}

void MappingState::write(ByteOffset at, std::span<const std::byte> from, HostAccess how) {
  require_writable("write");
  const ByteRange range = in_file({at, ByteCount{from.size()}}, "write");
  if (range.empty()) return;
  require_in_file(range, "write");
  Staging staging(from.data(), from.size());
  if (staging) std::copy(from.begin(), from.end(), staging.data());
  const std::span<const std::byte> source = staging ? std::span(staging.data(), from.size()) : from;
  throw_if_failed(write_file(*file_, {.at = range.first, .how = how}, source), file_->path(), "write");
}

void MappingState::read_direct(ByteOffset at, std::span<std::byte> into) {
  const ByteRange range = in_file({at, ByteCount{into.size()}}, "direct read");
  if (range.empty()) return;
  require_aligned(*file_, range, into.data(), "direct read");
  require_in_file(range, "direct read");
  throw_if_failed(read_file(*file_, {.at = range.first, .is_direct = true}, into), file_->path(),
                  "direct read");
}

void MappingState::write_direct(ByteOffset at, std::span<const std::byte> from) {
  require_writable("direct write");
  const ByteRange range = in_file({at, ByteCount{from.size()}}, "direct write");
  if (range.empty()) return;
  require_aligned(*file_, range, from.data(), "direct write");
  require_in_file(range, "direct write");
  throw_if_failed(write_file(*file_, {.at = range.first, .is_direct = true}, from), file_->path(),
                  "direct write");
}

}  // namespace aprime::engine
