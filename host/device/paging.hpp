#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "aprime/detail/paging.hpp"
#include "aprime/error.hpp"
#include "aprime/units.hpp"
#include "host/device/device.hpp"
#include "host/device/staging.hpp"
#include "host/sync/mutex.hpp"

// The host's side of faults from inside a running kernel; the device's side is in
// aprime/detail/page_access.hpp and pager.hpp.

namespace aprime::device {

/// Memory for rings and tables, in the places where a device wants them. Addresses are the same for the host
/// and the device.
class PagingMemory {
 public:
  virtual ~PagingMemory() = default;
  /// Zeroed memory that host and device reach while a kernel runs; lives as long as this.
  /// \throws Error(resources)
  virtual std::byte* shared(std::size_t bytes) = 0;
  /// Zeroed memory of the device; `free` gives it back. \throws Error(resources)
  virtual std::byte* device(std::size_t bytes) = 0;
  /// Does not wait for kernels that run.
  virtual void free(std::byte* device_memory) noexcept = 0;
  /// Makes memory from `device` zeros again, all of it. Returns when it is done. \pre no kernel runs
  virtual Status clear(std::byte* device_memory) noexcept = 0;
  /// Copies to memory of the device. Returns when it is there. \pre no kernel runs
  virtual Status upload(std::byte* to, std::span<const std::byte> from) noexcept = 0;
};

/// A region that kernels may fault on, as `Paging` needs it.
class PagedRegion {
 public:
  /// Makes what a session needs, when operations under way have ended. Later ones wait until the next of the
  /// two is called. \throws Error(resources), std::bad_alloc; then it is as it was
  virtual void prepare_session() = 0;
  /// From now on, until `leave_session`, its operations go through commands.
  virtual void enter_session() noexcept = 0;
  /// There will be no session.
  virtual void cancel_session() noexcept = 0;
  /// From now on they touch device memory directly again. Waits for operations under way.
  virtual void leave_session() noexcept = 0;
  /// Serves a fault; returns when the device's entry is right, or says why it cannot be.
  virtual Status serve(GranuleIndex g, bool write) noexcept = 0;
  /// The page table in device memory.
  virtual std::span<std::uint64_t> table() const noexcept = 0;
  virtual RegionId id() const noexcept = 0;

 protected:
  ~PagedRegion() = default;
};

/// Serves the faults of a software-paged device's running kernel, and makes device threads do what the host
/// wants done meanwhile. Made at the first launch that needs it.
///
/// One kernel at a time is between `begin` and `end`; commands may be posted by any thread in between, inside
/// a signal handler too: they allocate nothing and take no lock. Faults are served by a few threads of its
/// own, of which one at a time looks for new ones.
class Paging {
 public:
  /// Runs detail::PagerKernel once, until `port->pager_leave` is set (as it is before the first session);
  /// called on a thread of its own. Does not
  /// throw. Not ok: the device has failed, and executes nothing any more.
  using RunPager = std::function<Status(const detail::PagingPort* port)>;

  /// `frame_memory`: frame 0, as the pager reaches it. `memory` must outlive this.
  /// \throws Error(resources; what `memory` throws)
  Paging(PagingMemory& memory, std::byte* frame_memory, RunPager run_pager);
  /// \pre no session
  ~Paging();
  Paging(const Paging&) = delete;
  Paging& operator=(const Paging&) = delete;

  /// In device memory.
  const detail::PagingPort* port() const noexcept { return device_port_; }
  /// Frame 0, as device threads reach it that have not pinned it.
  const std::byte* frames() const noexcept { return port_.frames; }

  /// A kernel that may fault on these regions is about to start. \throws Error(resources)
  void begin(std::span<PagedRegion* const> regions);
  /// It has ended; `completed`: of itself. Afterwards no thread is inside the regions on its behalf.
  void end(bool completed) noexcept;

  /// Why a fault of the last session could not be served, if one could not.
  struct Failure {
    RegionId region;
    ByteOffset at;
    bool write;
    /// Not ok, or empty if the access was beyond what the launch was given.
    std::optional<Status> status;
  };
  std::optional<Failure> failure() const;

  // Commands. \pre inside a session
  using Ticket = std::uint64_t;
  /// Waits while the ring is full.
  Ticket post(const detail::PagingCommand& command) noexcept;
  /// Valid answers: ok; device_failed.
  Status await(Ticket ticket) noexcept;
  /// The same for `command`, a protect or revoke that was posted as `ticket`: posts it again while device
  /// threads have pins, as long as `how` says, so that none of them keeps a place in the ring. Valid answers:
  /// ok; device_failed; resources (EAGAIN, or ETIMEDOUT of who asks until they have) if they do not let go:
  /// what they still have is not known then, but no more than before, and the command may be executed yet.
  Status await_release(Ticket ticket, const detail::PagingCommand& command, Asking how) noexcept;

  /// To be called when device threads have been given rights: one that is to end (`fail`) may not keep what
  /// it was given after the others were closed, or it might use that for ever without a fault.
  void take_back_if_stopping(std::span<std::uint64_t> entries) noexcept;

  /// Where copies pass through. A lease's address is its `staging_at` plus the port's `staging`.
  StagingPool& staging() noexcept { return staging_; }
  std::uint64_t staging_at(std::span<const std::byte> part) const noexcept {
    return static_cast<std::uint64_t>(part.data() - port_.staging);
  }

 private:
  void serve_faults() noexcept;
  std::optional<detail::PagingFault> take_fault() noexcept;
  bool try_take_fault(detail::PagingFault& fault, bool& more) noexcept;
  void look_for_access_outside() noexcept;
  void sleep_until_wanted() noexcept;
  void want_another() noexcept;
  void answer(const detail::PagingFault& fault) noexcept;
  void fail(const Failure& failure) noexcept;
  void run_pagers() noexcept;
  /// Of those that were started.
  void end_threads() noexcept;
  /// PagingCommand::done of the slot that it had.
  std::uint64_t answer_to(Ticket ticket) const noexcept;
  bool is_done(Ticket ticket) const noexcept;
  /// The kernel is to end: a fault could not be served, or an access was outside.
  bool is_stopping() const noexcept;
  /// In this session, beyond what the launch was given.
  std::optional<Failure> access_outside() const noexcept;

  static constexpr unsigned kStagingBuffers = 12;

  const RunPager run_pager_;
  /// Constant after construction.
  detail::PagingPort port_;
  /// The same where device threads look at it all the time.
  const detail::PagingPort* device_port_ = nullptr;
  StagingPool staging_;

  std::atomic<Ticket> next_ticket_{0};

  // Of those who look for faults. Not a mutex: to hand one over costs more than to serve a fault.
  /// Somebody looks at this moment, and may use `taken_`.
  std::atomic<bool> looking_{false};
  std::uint64_t taken_ = 0;
  /// Threads that look again and again; the others sleep until `wanted_` changes.
  std::atomic<unsigned> lookers_{0};
  std::atomic<std::uint32_t> wanted_{0};

  /// Changed by begin and end, while nobody serves.
  std::vector<PagedRegion*> regions_;
  std::atomic<bool> active_{false};
  /// The device executes nothing any more; the reason is in `broken_why_`, written before.
  std::atomic<bool> broken_{false};
  Status broken_why_;

  mutable sync::Mutex mutex_{sync::LockRank::errors};
  std::condition_variable_any changed_;
  std::uint64_t session_ APRIME_GUARDED_BY(mutex_) = 0;
  bool in_session_ APRIME_GUARDED_BY(mutex_) = false;
  bool pager_runs_ APRIME_GUARDED_BY(mutex_) = false;
  bool leaving_ APRIME_GUARDED_BY(mutex_) = false;
  unsigned serving_ APRIME_GUARDED_BY(mutex_) = 0;
  std::optional<Failure> failure_ APRIME_GUARDED_BY(mutex_);

  /// Last: they use the others as soon as they exist.
  std::vector<std::thread> servers_;
  std::thread pager_;
};

}  // namespace aprime::device
