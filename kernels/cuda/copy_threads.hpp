#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "host/sync/mutex.hpp"
#include "kernels/cuda/copy_job.hpp"
#include "kernels/cuda/copy_worker.hpp"

namespace aprime::cuda {

/// Threads that move bytes in and out of device memory, each with a stream and page-locked staging memory of
/// its own. Large transfers are shared among them: one CPU thread reads the page cache more slowly than a GPU
/// takes the bytes.
///
/// Threads of its own also because a copy may be wanted by a thread that is inside a signal handler, on a
/// stack of a few KiB, where nothing of CUDA may be called. Such a thread only waits here. So `home` is used
/// on other threads than the caller's.
///
/// Thread-safe. All operations return when the bytes have arrived, allocate nothing, and answer ok,
/// device_failed, or what `home` answers. After a failure the target holds anything.
class CopyThreads {
 public:
  /// Where there is that much to move it should be asked for in one go, or in two halves at a time. All
  /// threads start on a job and end with it, and a link of 50 GB/s is not busy before they have and while
  /// they do, unless there is another job to go on to.
  static constexpr ByteCount kAtOnce{std::uint64_t{256} << 20};

  /// \throws Error(device_failed | device_memory | resources)
  CopyThreads(int gpu, unsigned threads);
  ~CopyThreads();
  CopyThreads(const CopyThreads&) = delete;
  CopyThreads& operator=(const CopyThreads&) = delete;

  Status fill(std::byte* to, ByteCount size, device::HomePort& home, ByteOffset at) noexcept;
  Status copy_home(std::byte* from, ByteCount size, device::HomePort& home, ByteOffset at) noexcept;
  Status write(std::byte* to, std::span<const std::byte> from) noexcept;
  Status read(std::byte* from, std::span<std::byte> into) noexcept;
  Status zero(std::byte* to, ByteCount size) noexcept;
  /// Both are device memory and do not overlap.
  Status copy(std::byte* from, std::byte* to, ByteCount size) noexcept;

 private:
  Status run(CopyJob& job) noexcept;
  void serve(CopyWorker& worker) noexcept;
  /// A piece for the worker, of the oldest job that has one left; none if `job` is null then.
  CopyPiece take(const CopyWorker& worker, CopyJob*& job) noexcept APRIME_REQUIRES(mutex_);
  std::uint64_t piece_bytes(std::uint64_t rest, bool is_first) const noexcept;
  void unlink(CopyJob& job) noexcept APRIME_REQUIRES(mutex_);
  /// A piece has ended, well or not.
  void note_end(CopyJob& job, const Status& status) noexcept;
  void stop() noexcept;

  const int gpu_;
  sync::Mutex mutex_{sync::LockRank::copies};
  /// Jobs with pieces that nobody has taken, oldest first.
  CopyJob* oldest_ APRIME_GUARDED_BY(mutex_) = nullptr;
  bool stopping_ APRIME_GUARDED_BY(mutex_) = false;
  /// Counts jobs and the wish to stop, so that idle threads can wait for either.
  std::atomic<std::uint32_t> posted_{0};
  std::vector<std::unique_ptr<CopyWorker>> workers_;
  std::vector<std::thread> threads_;
};

}  // namespace aprime::cuda
