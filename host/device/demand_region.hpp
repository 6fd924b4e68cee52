#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "host/device/framed_region.hpp"
#include "host/device/paging.hpp"
#include "host/os/gate.hpp"

namespace aprime::device {

/// What a device lends its regions for faults from inside kernels.
class PagingSource {
 public:
  /// Made at the first call. \throws Error(resources)
  virtual Paging& paging() = 0;
  virtual PagingMemory& paging_memory() noexcept = 0;

 protected:
  ~PagingSource() = default;
};

/// A `FramedRegion` that kernels may fault on. While such a kernel runs, device memory and page table belong
/// to device threads, so that every operation becomes commands to them; else it works on frames directly.
class DemandRegion final : public FramedRegion, private PagedRegion {
 public:
  /// All must outlive the region. `pool`: of the device's frames.
  DemandRegion(RegionParams params, FrameMemory& memory, ByteCount frame_bytes, FramePool& pool,
               PagingSource& source, FaultHandler& handler);
  ~DemandRegion() override;

  Progress fill(GranuleRange run, HomePort& home) noexcept override;
  Progress adopt(GranuleRange run) noexcept override;
  Progress grant_write(GranuleRange run) noexcept override;
  Progress protect(GranuleRange run) noexcept override {
    return take_rights(detail::PagingOp::protect, run, Asking::until_they_have);
  }
  Progress release(GranuleRange run) noexcept override {
    return take_rights(detail::PagingOp::revoke, run, Asking::until_they_have);
  }
  Progress try_protect(GranuleRange run, Asking how) noexcept override {
    return take_rights(detail::PagingOp::protect, run, how);
  }
  Progress try_release(GranuleRange run, Asking how) noexcept override {
    return take_rights(detail::PagingOp::revoke, run, how);
  }
  Progress copy_home(GranuleRange run, HomePort& home) noexcept override;
  Status read_copy(GranuleIndex g, ByteCount offset, std::span<std::byte> into) noexcept override;
  Status write_copy(GranuleIndex g, ByteCount offset, std::span<const std::byte> from) noexcept override;
  /// Less while a kernel runs: it may want a granule of the run, and commands take turns with its faults.
  ByteCount copied_at_once() const noexcept override;
  Status restore(GranuleRange run, bool write) noexcept override;
  Status reserve(GranuleCount granules) noexcept override;
  detail::PagedWindow paged_window() override;

  PagedRegion& paged() noexcept { return *this; }

 private:
  /// For device threads to let go: until they have; for a moment; not at all.

  // PagedRegion
  void prepare_session() override;
  void enter_session() noexcept override;
  void cancel_session() noexcept override;
  void leave_session() noexcept override;
  Status serve(GranuleIndex g, bool write) noexcept override;
  std::span<std::uint64_t> table() const noexcept override { return table_; }
  RegionId id() const noexcept override { return params_.id; }

  // The operations by commands. \pre in a session
  Progress fill_by_commands(GranuleRange run, HomePort& home) noexcept;
  /// Of granules that one command fills.
  Progress fill_each(GranuleRange run, HomePort& home, std::span<std::byte> staging) noexcept;
  Progress copy_home_by_commands(GranuleRange run, HomePort& home) noexcept;
  Status write_part(GranuleIndex g, std::uint64_t offset, std::span<const std::byte> from) noexcept;
  Status read_by_commands(GranuleIndex g, std::uint64_t first, std::uint64_t end,
                          std::byte* staging) noexcept;
  /// Moves whole granules; `staging` holds them one after the other.
  Status copy(detail::PagingOp op, GranuleRange run, std::span<const std::byte> staging) noexcept;
  /// Posts `make(0)` to `make(count - 1)` and waits for all. Valid answers: ok; device_failed.
  template <class Make>
  Status execute(std::uint64_t count, const Make& make) noexcept;
  /// Lets device threads use granules: opens the frames, then the entries.
  Progress publish(GranuleRange run, Right right) noexcept;
  /// Takes the write right, or all. Stops where device threads do not let go.
  Progress take(detail::PagingOp op, GranuleRange run, Asking how) noexcept;

  /// The same in a session or out of it.
  Progress take_rights(detail::PagingOp op, GranuleRange run, Asking how) noexcept;

  /// How many granules of the run, from its first on, a kernel may fault on: a file may have grown since its
  /// table was made.
  std::uint64_t paged_count(GranuleRange run) const noexcept;
  bool is_paged(GranuleIndex g) const noexcept { return paged_count({g, GranuleCount{1}}) != 0; }
  void note_rights(const Progress& p, GranuleRange run, std::uint64_t rights) noexcept;
  /// A right could not be taken in time: device threads may have fewer than are noted, as soon as they let go
  /// or the command is executed after all, be it later than others that are posted from now on. So until the
  /// session ends.
  void note_unsure(GranuleIndex g) noexcept;
  bool is_unsure_of(GranuleIndex g) const noexcept;
  /// Bits of detail::PageEntry, as in the next ones.
  std::uint64_t rights_of(GranuleIndex g) const noexcept;
  std::uint64_t entry_of(GranuleIndex g) const noexcept;
  std::uint64_t frame_at(GranuleIndex g) const noexcept;
  /// A frame is open to kernels once for each right of its granule. All or nothing.
  Status open_frames(GranuleIndex g, std::uint64_t rights) noexcept;
  void close_frames(GranuleIndex g, std::uint64_t rights) noexcept;

  const ByteCount frame_bytes_;
  FramePool& pool_;
  PagingSource& source_;
  FaultHandler& handler_;

  /// Shared by operations; had alone to change what follows.
  mutable os::Gate gate_;
  bool in_session_ = false;
  /// Who had frames when the session was prepared; then memory for its end.
  std::vector<FrameOwner> owners_;
  std::span<std::uint64_t> table_;
  /// detail::PageEntry's rights of each granule, with kRevoking if we are not sure of them. Written under the
  /// granule's transaction.
  os::GrowingTable<std::atomic<std::uint32_t>> rights_;
};

/// Runs a kernel that may fault on `regions`, which are DemandRegions of one device; `run` does it, and
/// returns when it has ended. A fault that could not be served is the launch's outcome.
/// \throws Error(resources); what `run` throws
LaunchResult run_on_demand(Paging& paging, std::span<Region* const> regions,
                           const std::function<LaunchResult()>& run);

}  // namespace aprime::device
