#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/copy_job.hpp"
#include "kernels/cuda/resources.hpp"

namespace aprime::cuda {

/// One stream with a ring of page-locked slots: while the GPU copies one slot, the CPU reads the next from
/// home or writes the one before it there. Used by one thread at a time.
class CopyWorker {
 public:
  /// What one `start` may move: large enough for a copy at full speed (the fixed cost of a copy is some
  /// microseconds: copies of 1 MiB moved 48 of a PCIe 5.0 link's 55 GB/s on an H200, whatever read the
  /// bytes), small enough to stay in the processor's cache on its way.
  static constexpr std::size_t kSlotBytes = std::size_t{2} << 20;
  static constexpr std::size_t kSlots = 3;

  /// \throws Error(device_failed | device_memory)
  CopyWorker() : staging_(kSlots * kSlotBytes) {}

  /// Whether there is no slot for another piece before the oldest has ended.
  bool is_full() const noexcept { return slots_[next_].job != nullptr; }
  /// Whose piece was started longest ago of those that have not ended; null if there is none.
  CopyJob* oldest() const noexcept;
  /// Begins to move a piece of a job, of `kSlotBytes` at most. After a failure, which is the piece's end, no
  /// copy of it is under way. \pre not full
  Status start(CopyJob& job, CopyPiece piece) noexcept;
  /// Ends the oldest piece: when it returns, also after a failure, no copy of it by a working GPU is under
  /// way. \pre there is one
  Status end_oldest() noexcept;

 private:
  struct Slot {
    Event copied;
    CopyPiece piece{};
    /// Whose piece the GPU may be copying.
    CopyJob* job = nullptr;
  };

  std::byte* bytes_of(std::size_t slot) const noexcept { return staging_.bytes().data() + slot * kSlotBytes; }
  Status fill_slot(const CopyJob& job, CopyPiece piece, std::byte* slot) noexcept;
  Status queue_copy(const CopyJob& job, CopyPiece piece, std::byte* slot) noexcept;
  /// Of the oldest piece, or of the next one if there is none.
  std::size_t oldest_slot() const noexcept;

  Stream stream_;
  PageLocked staging_;
  std::array<Slot, kSlots> slots_;
  /// The slot that is used next, which is the one that was used longest ago.
  std::size_t next_ = 0;
};

}  // namespace aprime::cuda
