#include "kernels/cuda/copy_worker.hpp"

#include <cassert>
#include <cstring>
#include <utility>

namespace aprime::cuda {

Status CopyWorker::fill_slot(const CopyJob& job, CopyPiece piece, std::byte* slot) noexcept {
  const std::size_t size = static_cast<std::size_t>(piece.size);
  if (job.kind == CopyJob::Kind::from_home)
    return job.home->read(job.at + ByteCount{piece.first}, {slot, size});
  if (job.kind == CopyJob::Kind::from_memory) std::memcpy(slot, job.memory + piece.first, size);
  return {};
}

Status CopyWorker::queue_copy(const CopyJob& job, CopyPiece piece, std::byte* slot) noexcept {
  std::byte* const device = job.device + piece.first;
  const std::size_t size = static_cast<std::size_t>(piece.size);
  const cudaStream_t stream = stream_.get();
  switch (job.kind) {
    case CopyJob::Kind::from_home:
    case CopyJob::Kind::from_memory:
      return APRIME_CUDA_TRY(cudaMemcpyAsync, device, slot, size, cudaMemcpyHostToDevice, stream);
    case CopyJob::Kind::to_home:
    case CopyJob::Kind::to_memory:
      return APRIME_CUDA_TRY(cudaMemcpyAsync, slot, device, size, cudaMemcpyDeviceToHost, stream);
    case CopyJob::Kind::zero: return APRIME_CUDA_TRY(cudaMemsetAsync, device, 0, size, stream);
    case CopyJob::Kind::on_device:
      return APRIME_CUDA_TRY(cudaMemcpyAsync, device, job.memory + piece.first, size,
                             cudaMemcpyDeviceToDevice, stream);
  }
  return {};
}

Status CopyWorker::start(CopyJob& job, CopyPiece piece) noexcept {
  assert(!is_full());
  const std::size_t at = next_;
  Slot& slot = slots_[at];
  Status status = fill_slot(job, piece, bytes_of(at));
  if (!status.is_ok()) return status;
  status = queue_copy(job, piece, bytes_of(at));
  if (!status.is_ok()) return status;
  status = APRIME_CUDA_TRY(cudaEventRecord, slot.copied.get(), stream_.get());
  if (!status.is_ok()) {
    // The event still tells of the slot's earlier use, so nobody may ask it.
    APRIME_CUDA_END(cudaStreamSynchronize, stream_.get());
    return status;
  }
  slot.piece = piece;
  slot.job = &job;
  next_ = (next_ + 1) % kSlots;
  return {};
}

std::size_t CopyWorker::oldest_slot() const noexcept {
  std::size_t at = next_;
  for (std::size_t i = 0; i < kSlots && slots_[at].job == nullptr; ++i) at = (at + 1) % kSlots;
  return at;
}

CopyJob* CopyWorker::oldest() const noexcept { return slots_[oldest_slot()].job; }

Status CopyWorker::end_oldest() noexcept {
  const std::size_t at = oldest_slot();
  Slot& slot = slots_[at];
  const CopyJob& job = *std::exchange(slot.job, nullptr);
  const Status status = APRIME_CUDA_TRY(cudaEventSynchronize, slot.copied.get());
  if (!status.is_ok()) return status;
  const std::size_t size = static_cast<std::size_t>(slot.piece.size);
  if (job.kind == CopyJob::Kind::to_home)
    return job.home->store(job.at + ByteCount{slot.piece.first}, {bytes_of(at), size});
  if (job.kind == CopyJob::Kind::to_memory) std::memcpy(job.memory + slot.piece.first, bytes_of(at), size);
  return {};
}

}  // namespace aprime::cuda
