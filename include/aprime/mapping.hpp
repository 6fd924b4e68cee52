#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "aprime/access.hpp"
#include "aprime/lease.hpp"
#include "aprime/units.hpp"

namespace aprime {

/// What to map and how.
struct MapOptions {
  /// First byte; a multiple of the granule.
  ByteOffset offset{0};
  /// Bytes to map, which the file must have; the rest of the file if empty.
  std::optional<ByteCount> length{};
  /// Unit of coherence and transfer: a power of two from 4 KiB to 2 MiB; the runtime's default if empty.
  std::optional<ByteCount> granule{};
  /// Default for `read` and `write`; the runtime's default if empty.
  std::optional<HostAccess> host_access{};
};

/// Where the bytes of one granule are, as told by `Mapping::snapshot`.
struct GranuleReport {
  enum class Place : std::uint8_t {
    host,          ///< only the host has them (the CPU may store)
    home,          ///< only home has them, nobody holds a right
    shared,        ///< home and the devices of `devices` have them, clean
    device,        ///< one device has them and may store; home is stale
    device_dirty,  ///< one device has them, read-only, not yet copied home
    mount,         ///< another process may have them through a mount
  };
  Place place;
  bool host_may_read;
  bool host_may_write;
  /// Bit n: device n holds a right and a copy.
  std::uint16_t devices;
};

namespace engine {
class MappingState;
}

/// A range of a file that the CPU, the devices of the runtime, `read`/`write` and direct I/O use coherently.
///
/// Offsets count from the start of the mapping, in bytes. Move-only: a handle. All members may be called by
/// several threads at once, except `resize`, `close` and moves, which need the mapping for themselves.
/// Destruction ends the mapping as munmap does: dirty bytes are copied home (not made durable: call `sync`);
/// what cannot be copied home stays with the runtime, which tries again and reports (see Runtime::close).
/// Must not outlive its runtime. One that was closed, moved from, or made without a file has no bytes: what
/// may throw throws Error(invalid_argument); `path`, `access`, `granule` and `direct_alignment` must not be
/// called.
class Mapping {
 public:
  Mapping() = default;
  explicit Mapping(std::shared_ptr<engine::MappingState> state) noexcept;
  Mapping(Mapping&&) noexcept = default;
  Mapping& operator=(Mapping&&) noexcept;
  ~Mapping();

  const std::string& path() const noexcept;
  Access access() const noexcept;
  ByteCount granule() const noexcept;
  /// Length of the mapping in bytes. Another process that truncates the file does not change it: the bytes
  /// beyond the end are then out of range. (Of the granule in which the file ends, kernels and the CPU's
  /// pointer may reach them still, as they may the rest of the last page of any mapped file; what they store
  /// there is dropped.)
  ByteCount size_bytes() const noexcept;
  /// Number of whole elements of type T.
  template <class T = std::byte>
  std::size_t size() const noexcept {
    return static_cast<std::size_t>(size_bytes().value / sizeof(T));
  }

  /// The CPU's pointer to the bytes, coherent by faults: each access to a granule that a device has taken
  /// traps and is served in the accessing thread. The first call maps the file; where it is never called,
  /// devices need not protect anything from the CPU. If serving fails (disk full on the way home, file
  /// shrank) the access raises SIGBUS, as it does for any mapped file; use `read` and `write` to get errors
  /// instead. For system calls see `host_lease`. The span stays valid until the mapping ends, or grows: call
  /// again after a `resize` to more (there is room for as much again, 64 MiB at least, where the address
  /// space has it). \throws Error(access_denied) if T is not const and the mapping is read-only;
  /// Error(cannot_open) where the file
  ///         system cannot map files; Error(resources)
  template <class T>
  std::span<T> host() const {
    static_assert(std::is_trivially_copyable_v<T>);
    return {reinterpret_cast<T*>(host_pointer(!std::is_const_v<T>)), size<T>()};
  }

  /// Reads bytes [at, at + into.size()). Atomic per granule: all of a granule's bytes are from one instant
  /// between other calls, migrations and device writes. `how` replaces the mapping's choice for this call.
  /// \throws Error(out_of_range | io | no_space)
  void read(ByteOffset at, std::span<std::byte> into, std::optional<HostAccess> how = {}) const;
  /// Writes bytes [at, at + from.size()); never grows the file. Atomic per granule.
  /// \throws Error(access_denied | out_of_range | io | no_space)
  void write(ByteOffset at, std::span<const std::byte> from, std::optional<HostAccess> how = {}) const;
  /// The same past the page cache (O_DIRECT): dirty device granules of the range go to disk first, and after
  /// a direct write no device has a copy. `at`, address and size must be multiples of `direct_alignment()`.
  /// Waits for host leases of the range, and so for ever for one of the calling thread's own.
  /// \throws Error(invalid_argument) for alignment; as `read` and `write` otherwise
  void read_direct(ByteOffset at, std::span<std::byte> into) const;
  void write_direct(ByteOffset at, std::span<const std::byte> from) const;
  ByteCount direct_alignment() const noexcept;

  /// Makes everything stored to the range by anyone before the call durable: copies dirty granules home,
  /// writes them to disk, waits. Devices keep their copies, clean. Waits for launches that hold a write lease
  /// in the range.
  /// \throws Error(no_space | io | ...) if this fails, or if a background writeback of the file failed since
  /// this
  ///         mapping's last sync. The bytes stay dirty; a later sync tries again.
  void sync() const;
  /// The same for a range. \throws also Error(out_of_range) if it does not lie in the mapping
  void sync(ByteRange range) const;

  /// Speeds up expected use; never changes results. \throws Error(out_of_range) likewise
  void advise(ByteRange range, Advice advice) const;
  /// Copies the range to a device ahead of use, as far as its memory has room; the device may read it, or
  /// store if `right` says so. Waits for host leases that keep the device out: who has one there waits for
  /// ever. \throws Error(invalid_argument) if there is no such device; Error(access_denied | out_of_range |
  /// io |
  ///         no_space | device_memory | resources)
  void prefetch(ByteRange range, unsigned device, Right right = Right::read) const;
  /// Brings the range home: the CPU may read it without a fault. Waits for launches that have leased it.
  /// \throws Error(out_of_range | io | no_space | resources)
  void prefetch_home(ByteRange range) const;

  /// Sets the size of the file so that the mapping has `size` bytes; new bytes are zeros. Only for a mapping
  /// that reaches the end of its file.
  /// \throws Error(access_denied | no_space | io | invalid_argument | resources)
  void resize(ByteCount size);
  /// Punches a hole: the range reads as zeros and its disk space is free. Waits for leases of it.
  /// \throws Error(access_denied | out_of_range | io)
  void discard(ByteRange range) const;

  /// \throws Error(access_denied | out_of_range | io | no_space; resources, also if a granule has 16383
  /// leases)
  HostLease host_lease(ByteRange range, Right right) const;

  /// The state of each granule that holds a byte of the range, in order. \throws Error(out_of_range)
  std::vector<GranuleReport> snapshot(ByteRange range) const;

  /// As destruction, but waits for the launches that use the mapping, and reports. What devices have stored
  /// goes home when the last mapping of a file ends: as long as there is another one, or a host lease, there
  /// is nothing to report yet.
  /// \throws Error(no_space | io | resources) if dirty bytes could not be copied home: they stay on the
  ///         device, and are tried again
  void close();

  const std::shared_ptr<engine::MappingState>& state() const noexcept { return state_; }

 private:
  engine::MappingState& used() const;
  std::byte* host_pointer(bool writable) const;

  std::shared_ptr<engine::MappingState> state_;
};

}  // namespace aprime
