#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "aprime/units.hpp"
#include "host/sync/mutex.hpp"

namespace aprime::device {

/// Names a device's bookkeeping for one file; small, so that a frame's owner fits a word.
using RegionId = std::uint16_t;

/// Whose A′ a frame holds.
struct FrameOwner {
  RegionId region;
  GranuleIndex granule;
  bool operator==(const FrameOwner&) const = default;
};

/// Hands out the frames of one device's memory and says which granule to evict when there are none left.
///
/// A granule takes one or more contiguous frames. The pool never evicts by itself: it names a candidate,
/// chosen by CLOCK (second chance; Corbató 1968), and the engine takes that granule through the directory. A
/// candidate that turns out to be busy or pinned costs nothing: the next call names another. Allocates its
/// whole table when made (what eviction needs is reserved at start), 16 bytes and one bit a frame.
/// Thread-safe; the mutex is held for a bounded search, never across I/O.
///
/// Granules of different sizes may share a pool. As each is aligned to its own size, of two of them that
/// overlap one would lie inside the other; so the frames that a claim needs hold either parts of one larger
/// granule, or whole granules only.
class FramePool {
 public:
  explicit FramePool(FrameCount capacity);

  struct Claim {
    enum class Kind : std::uint8_t {
      got,        ///< `frame` is the first of the frames; they belong to the owner now
      evict,      ///< evict `victim`, then ask again
      none_free,  ///< every frame is pinned or reserved for a lease
    };
    Kind kind;
    FrameIndex frame{};
    FrameOwner victim{};
  };
  /// Takes `count` contiguous frames (aligned to `count`, a power of two) for `owner`. A claim that needs the
  /// frames of several small granules names them one call after the other.
  Claim claim(FrameCount count, FrameOwner owner) noexcept;

  /// Gives the frames of one granule back. Frames inside a run that is being reserved stay reserved.
  /// \pre the granule is not pinned
  void free(FrameIndex first, FrameCount count) noexcept;

  /// Reserves a run of `count` contiguous frames (aligned to `alignment` frames, a power of two) for a lease:
  /// the cheapest one that contains no pinned or reserved frame. A free frame costs nothing; a dirty granule
  /// costs more than a clean one, a recently used one more than an idle one. Free frames of the run can be
  /// claimed by nobody else from now on; occupied ones are the caller's to evict, one `owner_at` after the
  /// other: no granule begins before the run and reaches into it, though the last may reach beyond its end.
  /// Empty if there is no such run now.
  std::optional<FrameIndex> reserve_run(FrameCount count, FrameCount alignment) noexcept;
  /// The granule whose first frame this is, if any.
  std::optional<FrameOwner> owner_at(FrameIndex frame) const noexcept;
  /// The first frame from `from` on that is a granule's first; `end` if there is none before.
  FrameIndex next_owned(FrameIndex from, FrameIndex end) const noexcept;
  /// Makes frames of a reserved run belong to `owner`, the next `count` to the granule after that, and so on
  /// for all of `granules`. They stay reserved: should a granule leave, its frames are for the lease still.
  /// \pre reserved and free of an owner
  void assign(FrameIndex first, FrameCount count, FrameOwner owner,
              GranuleCount granules = GranuleCount{1}) noexcept;
  /// What lies in frames from `from` on, `granules` of `count` frames each in a row, lies from `to` on now,
  /// as dirty as it was. \pre not pinned; the new frames are reserved and free of an owner
  void move(FrameIndex from, FrameIndex to, FrameCount count, GranuleCount granules) noexcept;
  /// Ends the reservation of [first, first + count): frames that were not assigned are free again. Granules
  /// that are there stay where they are.
  void cancel_run(FrameIndex first, FrameCount count) noexcept;

  /// Pinned frames are never named for eviction. Pins nest. [first, first + count) may hold many granules.
  void pin(FrameIndex first, FrameCount count) noexcept;
  void unpin(FrameIndex first, FrameCount count) noexcept;
  bool is_pinned(FrameIndex first) const noexcept;
  /// The granule in this frame was used: it gets a second chance.
  void touch(FrameIndex first) noexcept;

  /// Remembers since when (milliseconds of any monotonic clock, not 0) the granule has bytes that home has
  /// not; 0 = clean.
  void set_dirty_since(FrameIndex first, std::uint32_t ms) noexcept;
  /// The same for all granules of [first, first + count) that were clean (`ms` != 0) or dirty (`ms` == 0).
  /// Returns how many these are.
  std::uint64_t set_all_dirty_since(FrameIndex first, FrameCount count, std::uint32_t ms) noexcept;
  std::uint32_t dirty_since(FrameIndex first) const noexcept;
  /// The dirty_since that is longest before `none`, which is what is returned if there is none; the clock may
  /// have wrapped between them. Looks at every frame.
  std::uint32_t oldest_dirty(std::uint32_t none) const noexcept;
  /// Whether a granule of the region is dirty. Looks at every frame.
  bool has_dirty(RegionId region) const noexcept;

  /// Appends every owner of region `region` (or of all regions if empty) with a granule in `range`, in any
  /// order. `dirty_only`: only those with dirty_since != 0.
  void collect(std::optional<RegionId> region, GranuleRange range, bool dirty_only,
               std::vector<FrameOwner>& out) const;

  FrameCount capacity() const noexcept { return capacity_; }
  /// Frames that belong to nobody and are not reserved.
  FrameCount free_count() const noexcept;

 private:
  /// What is known of one frame. A granule's first frame speaks for all of it, except for pins and
  /// reservation.
  struct Frame {
    /// Region in the upper 16 bits, granule in the lower 48.
    std::uint64_t owner = 0;
    std::uint32_t dirty_since = 0;
    std::uint16_t pins = 0;
    /// Binary logarithm of the number of frames of the granule, in each of them.
    std::uint8_t log2_count = 0;
    bool occupied : 1 = false;
    bool reserved : 1 = false;
    /// Used since the clock's hand last passed (first frame only).
    bool used : 1 = false;
  };
  static_assert(sizeof(Frame) == 16);

  static constexpr std::uint64_t kNone = ~std::uint64_t{0};

  bool is_head(std::uint64_t at) const noexcept APRIME_REQUIRES(mutex_);
  std::uint64_t head_of(std::uint64_t at) const noexcept APRIME_REQUIRES(mutex_);
  bool any_held(std::uint64_t first, std::uint64_t count) const noexcept APRIME_REQUIRES(mutex_);
  std::uint64_t find_free(std::uint64_t count) noexcept APRIME_REQUIRES(mutex_);
  std::uint64_t next_victim(std::uint64_t count) noexcept APRIME_REQUIRES(mutex_);
  bool pass_by(std::uint64_t first, std::uint64_t count) noexcept APRIME_REQUIRES(mutex_);
  void occupy(std::uint64_t first, std::uint64_t count, FrameOwner owner) noexcept APRIME_REQUIRES(mutex_);
  void vacate(std::uint64_t first, std::uint64_t count) noexcept APRIME_REQUIRES(mutex_);
  void set_free(std::uint64_t at, bool free) noexcept APRIME_REQUIRES(mutex_);
  std::uint64_t cost_of(std::uint64_t at) const noexcept APRIME_REQUIRES(mutex_);
  std::uint64_t cheapest_run(std::uint64_t count, std::uint64_t alignment) const noexcept
      APRIME_REQUIRES(mutex_);

  const FrameCount capacity_;

  mutable sync::Mutex mutex_{sync::LockRank::frames};
  std::vector<Frame> frames_ APRIME_GUARDED_BY(mutex_);
  /// One bit a frame: neither occupied nor reserved.
  std::vector<std::uint64_t> free_bits_ APRIME_GUARDED_BY(mutex_);
  std::uint64_t free_ APRIME_GUARDED_BY(mutex_);
  /// Where the last free frame was found: the next search begins there.
  std::size_t free_hint_ APRIME_GUARDED_BY(mutex_) = 0;
  /// The clock's hand, a frame.
  std::uint64_t hand_ APRIME_GUARDED_BY(mutex_) = 0;
};

}  // namespace aprime::device
