#include "kernels/cuda/copy_threads.hpp"

#include <chrono>
#include <system_error>

#include "host/os/futex.hpp"
#include "host/os/quiet_thread.hpp"

namespace aprime::cuda {
namespace {

/// A lost wake-up cannot happen; should the kernel forget one, this is what it costs.
constexpr std::chrono::milliseconds kLookAgain{100};
/// Less is not worth a thread's while: beginning a copy costs the CPU and the GPU some microseconds.
constexpr std::uint64_t kPieceBytesMin = std::uint64_t{512} << 10;
/// So much takes longer than the pieces of all threads together.
constexpr std::uint64_t kLargeBytesMin = std::uint64_t{64} << 20;

}  // namespace

CopyThreads::CopyThreads(int gpu, unsigned threads) : gpu_(gpu) {
  for (unsigned i = 0; i < threads; ++i) workers_.push_back(std::make_unique<CopyWorker>());
  try {
    for (const auto& worker : workers_)
      threads_.push_back(os::start_quiet_thread([this, w = worker.get()] { serve(*w); }));
  } catch (const std::system_error& error) {
    stop();
    throw Error(Errc::resources, std::string("cannot start threads for a CUDA device: ") + error.what(), {},
                error.code().value());
  }
}

CopyThreads::~CopyThreads() { stop(); }

void CopyThreads::stop() noexcept {
  {
    const sync::Lock lock(mutex_);
    stopping_ = true;
    posted_.fetch_add(1);
  }
  os::futex_wake_all(posted_);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

Status CopyThreads::fill(std::byte* to, ByteCount size, device::HomePort& home, ByteOffset at) noexcept {
  CopyJob job{.kind = CopyJob::Kind::from_home, .device = to, .size = size.value, .home = &home, .at = at};
  return run(job);
}

Status CopyThreads::copy_home(std::byte* from, ByteCount size, device::HomePort& home,
                              ByteOffset at) noexcept {
  CopyJob job{.kind = CopyJob::Kind::to_home, .device = from, .size = size.value, .home = &home, .at = at};
  return run(job);
}

Status CopyThreads::write(std::byte* to, std::span<const std::byte> from) noexcept {
  CopyJob job{.kind = CopyJob::Kind::from_memory,
              .device = to,
              .size = from.size(),
              .memory = const_cast<std::byte*>(from.data())};
  return run(job);
}

Status CopyThreads::read(std::byte* from, std::span<std::byte> into) noexcept {
  CopyJob job{.kind = CopyJob::Kind::to_memory, .device = from, .size = into.size(), .memory = into.data()};
  return run(job);
}

Status CopyThreads::zero(std::byte* to, ByteCount size) noexcept {
  CopyJob job{.kind = CopyJob::Kind::zero, .device = to, .size = size.value};
  return run(job);
}

Status CopyThreads::copy(std::byte* from, std::byte* to, ByteCount size) noexcept {
  CopyJob job{.kind = CopyJob::Kind::on_device, .device = to, .size = size.value, .memory = from};
  return run(job);
}

Status CopyThreads::run(CopyJob& job) noexcept {
  if (job.size == 0) return {};
  {
    const sync::Lock lock(mutex_);
    CopyJob** last = &oldest_;
    while (*last != nullptr) last = &(*last)->following;
    *last = &job;
    posted_.fetch_add(1);
  }
  os::futex_wake_all(posted_);
  while (job.done.load(std::memory_order_acquire) == 0) os::futex_wait(job.done, 0, kLookAgain);
  // The thread that said so holds the mutex until it needs the job no more.
  const sync::Lock lock(mutex_);
  return job.status;
}

void CopyThreads::serve(CopyWorker& worker) noexcept {
  // Made current for the thread's life. Should it fail, so does the first copy.
  APRIME_CUDA_END(cudaSetDevice, gpu_);
  for (;;) {
    CopyJob* job = nullptr;
    CopyPiece piece;
    std::uint32_t seen = 0;
    {
      const sync::Lock lock(mutex_);
      seen = posted_.load();
      if (!worker.is_full()) piece = take(worker, job);
      if (job == nullptr && worker.oldest() == nullptr && stopping_) return;
    }
    if (job != nullptr) {
      const Status status = worker.start(*job, piece);
      if (!status.is_ok()) note_end(*job, status);
    } else if (CopyJob* const oldest = worker.oldest(); oldest != nullptr) {
      note_end(*oldest, worker.end_oldest());
    } else {
      os::futex_wait(posted_, seen, kLookAgain);
    }
  }
}

/// Small to begin with, so that the GPU has something to do soon, and again towards the end, so that all
/// threads end at about the same time (guided self-scheduling; Polychronopoulos and Kuck 1987).
std::uint64_t CopyThreads::piece_bytes(std::uint64_t rest, bool is_first) const noexcept {
  if (is_first) return kPieceBytesMin;
  const std::uint64_t share = rest / workers_.size() / kPieceBytesMin * kPieceBytesMin;
  return std::clamp<std::uint64_t>(share, kPieceBytesMin, CopyWorker::kSlotBytes);
}

CopyPiece CopyThreads::take(const CopyWorker& worker, CopyJob*& job) noexcept {
  if (oldest_ == nullptr) return {};
  // From one large job a thread goes on to the next while its last pieces are on their way. Who waits for
  // little does not wait for a piece of another job as well.
  const CopyJob* const before = worker.oldest();
  if (before != nullptr && before != oldest_ && before->size < kLargeBytesMin) return {};
  job = oldest_;
  const std::uint64_t rest = job->size - job->next;
  const CopyPiece piece{job->next, std::min(rest, piece_bytes(rest, before == nullptr))};
  job->next += piece.size;
  ++job->pieces;
  if (job->is_taken()) unlink(*job);
  return piece;
}

void CopyThreads::unlink(CopyJob& job) noexcept {
  for (CopyJob** link = &oldest_; *link != nullptr; link = &(*link)->following) {
    if (*link != &job) continue;
    *link = job.following;
    return;
  }
}

void CopyThreads::note_end(CopyJob& job, const Status& status) noexcept {
  const sync::Lock lock(mutex_);
  if (!status.is_ok() && job.status.is_ok()) {
    job.status = status;
    // No further piece is begun, by nobody.
    unlink(job);
  }
  if (--job.pieces > 0 || !job.is_taken()) return;
  job.done.store(1, std::memory_order_release);
  os::futex_wake_all(job.done);
}

}  // namespace aprime::cuda
