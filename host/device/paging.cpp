#include "host/device/paging.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>
#include <utility>

#include "aprime/detail/page_access.hpp"
#include "host/device/device_fault.hpp"
#include "host/device/kernel_stop.hpp"
#include "host/os/futex.hpp"
#include "host/os/quiet_thread.hpp"

namespace aprime::device {

namespace {

using detail::PagingCommand;
using detail::PagingFault;
using detail::PagingOp;
using Clock = std::chrono::steady_clock;

/// So many look for faults while there are none: one that takes one need not wake another.
constexpr unsigned kLookersMin = 2;
/// How long device threads may keep a granule that the host wants, and one in the place of which it can take
/// another.
constexpr std::chrono::milliseconds kReleaseWaitMax{30'000};
constexpr std::chrono::milliseconds kBriefWaitMax{20};
/// A lost wake-up cannot happen; should the kernel forget one, this is what it costs.
constexpr std::chrono::milliseconds kLookAgain{100};

/// Each serves one fault at a time, for most of which it copies from the page cache.
unsigned service_threads() noexcept { return std::clamp(std::thread::hardware_concurrency() / 2, 4U, 8U); }

/// What the host and the device both write to, and what some device threads write and others look at all the
/// time, lies in different cache lines: a GPU's have 128 bytes.
template <class T>
struct alignas(128) Line {
  T value;
};

struct SharedWords {
  Line<std::uint64_t> faults_taken;
  Line<std::uint64_t> stop;
  Line<std::uint64_t> pager_leave;
  Line<std::uint64_t> session;
  Line<detail::PagingFailure> failure;
  PagingCommand commands[detail::kPagingCommands];
  PagingFault faults[detail::kPagingFaults];
};

struct DeviceWords {
  Line<std::uint64_t> next_command;
  Line<std::uint64_t> next_fault;
  Line<std::uint64_t> faults_known;
  Line<std::uint64_t> failed;
  Line<std::uint64_t> waiting;
  Line<std::uint64_t> pagers;
  Line<std::uint64_t> copiers;
  Line<std::uint64_t> pieces_listed;
  Line<std::uint64_t> pieces_promised;
  detail::CopyJob jobs[detail::kPagingCommands];
  detail::CopyPiece pieces[detail::kPagingPieces];
};

std::atomic_ref<std::uint64_t> word(std::uint64_t& w) noexcept { return std::atomic_ref<std::uint64_t>(w); }

PagingCommand close_of(std::span<std::uint64_t> entries) noexcept {
  return {.op = PagingOp::close, .entry = entries.data(), .value = entries.size()};
}

/// Waits for something that another thread or the device does soon: looks again at once at first, then gives
/// the processor away, then sleeps. Usable inside a signal handler.
class Backoff {
 public:
  /// The next pause gives the processor to others for a while.
  bool is_sleeping() const noexcept { return rounds_ >= kYields; }
  void pause() noexcept {
    ++rounds_;
    if (rounds_ < kSpins) {
      __builtin_ia32_pause();
    } else if (rounds_ < kYields) {
      ::sched_yield();
    } else {
      const timespec t{0, 50'000};
      ::nanosleep(&t, nullptr);
    }
  }

 private:
  static constexpr unsigned kSpins = 64;
  static constexpr unsigned kYields = 512;
  unsigned rounds_ = 0;
};

/// Between two looks whether device threads have let go: each costs them a command, and they may take long.
class ReleasePause {
 public:
  void pause() noexcept {
    if (microseconds_ < kAtOnce) {
      ::sched_yield();
    } else {
      const timespec t{0, microseconds_ * 1000};
      ::nanosleep(&t, nullptr);
    }
    if (microseconds_ < kMax) microseconds_ *= 2;
  }

 private:
  static constexpr long kAtOnce = 16;
  static constexpr long kMax = 1024;
  long microseconds_ = 1;
};

}  // namespace

Paging::Paging(PagingMemory& memory, std::byte* frame_memory, RunPager run_pager)
    : run_pager_(std::move(run_pager)),
      staging_(std::span(memory.shared(kStagingBuffers * StagingPool::kBufferBytes),
                         kStagingBuffers * StagingPool::kBufferBytes),
               kStagingBuffers) {
  auto* const shared = reinterpret_cast<SharedWords*>(memory.shared(sizeof(SharedWords)));
  auto* const device = reinterpret_cast<DeviceWords*>(memory.device(sizeof(DeviceWords)));
  port_ = {.commands = shared->commands,
           .faults = shared->faults,
           .staging = staging_.memory().data(),
           .faults_taken = &shared->faults_taken.value,
           .stop = &shared->stop.value,
           .pager_leave = &shared->pager_leave.value,
           .session = &shared->session.value,
           .failure = &shared->failure.value,
           .frames = frame_memory,
           .next_command = &device->next_command.value,
           .next_fault = &device->next_fault.value,
           .faults_known = &device->faults_known.value,
           .failed = &device->failed.value,
           .waiting = &device->waiting.value,
           .pagers = &device->pagers.value,
           .copiers = &device->copiers.value,
           .jobs = device->jobs,
           .pieces = device->pieces,
           .pieces_listed = &device->pieces_listed.value,
           .pieces_promised = &device->pieces_promised.value};
  device_port_ = reinterpret_cast<const detail::PagingPort*>(memory.device(sizeof port_));
  if (const Status status =
          memory.upload(reinterpret_cast<std::byte*>(const_cast<detail::PagingPort*>(device_port_)),
                        std::as_bytes(std::span(&port_, 1)));
      !status.is_ok())
    throw Error(status.code, "device memory cannot be written to");
  // Until there is a session.
  word(*port_.pager_leave).store(1);
  try {
    servers_.resize(service_threads());
    for (std::thread& server : servers_) server = os::start_quiet_thread([this] { serve_faults(); });
    pager_ = os::start_quiet_thread([this] { run_pagers(); });
  } catch (const std::system_error& error) {
    end_threads();
    throw Error(Errc::resources,
                fmt::format("cannot start the threads that serve a device's faults: {}", error.what()), {},
                error.code().value());
  } catch (...) {
    end_threads();
    throw;
  }
}

Paging::~Paging() { end_threads(); }

void Paging::end_threads() noexcept {
  {
    const sync::Lock lock(mutex_);
    assert(!in_session_);
    leaving_ = true;
  }
  changed_.notify_all();
  for (std::thread& server : servers_)
    if (server.joinable()) server.join();
  if (pager_.joinable()) pager_.join();
}

void Paging::begin(std::span<PagedRegion* const> regions) {
  regions_.assign(regions.begin(), regions.end());
  // None enters before all are prepared: commands have nobody to execute them if there is no session.
  std::size_t prepared = 0;
  try {
    for (; prepared < regions_.size(); ++prepared) regions_[prepared]->prepare_session();
  } catch (...) {
    while (prepared > 0) regions_[--prepared]->cancel_session();
    throw;
  }
  for (PagedRegion* region : regions_) region->enter_session();
  {
    const sync::Lock lock(mutex_);
    failure_.reset();
    in_session_ = true;
    pager_runs_ = true;
    word(*port_.stop).store(0);
    word(*port_.pager_leave).store(0);
    word(*port_.session).store(++session_);
    active_.store(true);
  }
  changed_.notify_all();
}

void Paging::end(bool completed) noexcept {
  if (!completed || is_stopping() || access_outside())
    for (const PagedRegion* region : regions_)
      static_cast<void>(await(
          post({.op = PagingOp::sweep, .entry = region->table().data(), .value = region->table().size()})));
  for (PagedRegion* region : regions_) region->leave_session();
  active_.store(false);
  wanted_.fetch_add(1);
  os::futex_wake_all(wanted_);
  const sync::Lock lock(mutex_);
  in_session_ = false;
  while (serving_ != 0) changed_.wait(mutex_);
  word(*port_.pager_leave).store(1, std::memory_order_release);
  while (pager_runs_) changed_.wait(mutex_);
  if (!failure_) failure_ = access_outside();
}

bool Paging::is_stopping() const noexcept { return word(*port_.stop).load() != 0; }

std::optional<Paging::Failure> Paging::failure() const {
  const sync::Lock lock(mutex_);
  return failure_;
}

Paging::Ticket Paging::post(const PagingCommand& command) noexcept {
  const Ticket ticket = next_ticket_.fetch_add(1, std::memory_order_relaxed);
  PagingCommand& slot = port_.commands[ticket % detail::kPagingCommands];
  if (ticket >= detail::kPagingCommands) {
    for (Backoff backoff; !is_done(ticket - detail::kPagingCommands) && !broken_.load();) backoff.pause();
  }
  slot.op = command.op;
  slot.bytes = command.bytes;
  slot.entry = command.entry;
  slot.value = command.value;
  slot.frame_at = command.frame_at;
  slot.staging_at = command.staging_at;
  word(slot.ready).store(ticket + 1, std::memory_order_release);
  return ticket;
}

std::uint64_t Paging::answer_to(Ticket ticket) const noexcept {
  return word(port_.commands[ticket % detail::kPagingCommands].done).load(std::memory_order_acquire);
}

bool Paging::is_done(Ticket ticket) const noexcept { return answer_to(ticket) >> 1 > ticket; }

Status Paging::await(Ticket ticket) noexcept {
  for (Backoff backoff; !is_done(ticket); backoff.pause())
    if (broken_.load(std::memory_order_acquire)) return broken_why_;
  return {};
}

Status Paging::await_release(Ticket ticket, const PagingCommand& command, Asking how) noexcept {
  const bool patiently = how == Asking::until_they_have;
  const int given_up = patiently ? ETIMEDOUT : EAGAIN;
  const auto deadline = Clock::now() + (patiently ? kReleaseWaitMax : kBriefWaitMax);
  ReleasePause rest;
  for (Backoff backoff;; backoff.pause()) {
    const std::uint64_t answer = answer_to(ticket);
    if (answer == (ticket + 1) << 1) return {};
    if (broken_.load(std::memory_order_acquire)) return broken_why_;
    if (Clock::now() > deadline) return {Errc::resources, given_up, {}};
    if (answer >> 1 <= ticket) continue;
    // Pinned; or others have the slot already, and what it said is not known.
    if (how == Asking::once) return {Errc::resources, given_up, {}};
    rest.pause();
    ticket = post(command);
    backoff = {};
  }
}

void Paging::take_back_if_stopping(std::span<std::uint64_t> entries) noexcept {
  if (is_stopping()) static_cast<void>(await(post(close_of(entries))));
}

void Paging::serve_faults() noexcept {
  for (;;) {
    {
      const sync::Lock lock(mutex_);
      while (!in_session_ && !leaving_) changed_.wait(mutex_);
      if (leaving_) return;
      ++serving_;
    }
    while (const std::optional<PagingFault> fault = take_fault()) answer(*fault);
    {
      const sync::Lock lock(mutex_);
      if (--serving_ == 0) changed_.notify_all();
      // Not again in the session that ends.
      while (in_session_ && !active_.load() && !leaving_) changed_.wait(mutex_);
    }
  }
}

/// The next fault; empty when the session ends.
std::optional<PagingFault> Paging::take_fault() noexcept {
  lookers_.fetch_add(1);
  PagingFault fault;
  bool more = false;
  for (Backoff backoff; active_.load(std::memory_order_relaxed); backoff.pause()) {
    look_for_access_outside();
    if (try_take_fault(fault, more)) {
      // How long it takes to serve it nobody knows.
      if (lookers_.fetch_sub(1) == 1 || more) want_another();
      return fault;
    }
    if (!backoff.is_sleeping() || lookers_.load() <= kLookersMin) continue;
    sleep_until_wanted();
    backoff = {};
  }
  lookers_.fetch_sub(1);
  return std::nullopt;
}

bool Paging::try_take_fault(PagingFault& fault, bool& more) noexcept {
  if (looking_.load(std::memory_order_relaxed) || looking_.exchange(true, std::memory_order_acquire))
    return false;
  const auto is_there = [&] {
    return word(port_.faults[taken_ % detail::kPagingFaults].ready).load(std::memory_order_acquire) ==
           taken_ + 1;
  };
  const bool found = is_there();
  if (found) {
    fault = port_.faults[taken_ % detail::kPagingFaults];
    ++taken_;
    word(*port_.faults_taken).store(taken_, std::memory_order_release);
    more = is_there();
  }
  looking_.store(false, std::memory_order_release);
  return found;
}

/// Only that thread ended: the others may wait for what it does not do any more.
void Paging::look_for_access_outside() noexcept {
  if (is_stopping()) return;
  if (const std::optional<Failure> outside = access_outside()) fail(*outside);
}

std::optional<Paging::Failure> Paging::access_outside() const noexcept {
  const detail::PagingFailure& outside = *port_.failure;
  if (word(port_.failure->session).load(std::memory_order_acquire) != word(*port_.session).load())
    return std::nullopt;
  return Failure{static_cast<RegionId>(outside.region), ByteOffset{outside.offset}, outside.write != 0, {}};
}

void Paging::sleep_until_wanted() noexcept {
  // Read first: whoever wants somebody after we have stopped looking changes it.
  const std::uint32_t seen = wanted_.load();
  if (lookers_.fetch_sub(1) > kLookersMin && active_.load()) os::futex_wait(wanted_, seen, kLookAgain);
  lookers_.fetch_add(1);
}

void Paging::want_another() noexcept {
  wanted_.fetch_add(1);
  os::futex_wake_one(wanted_);
}

void Paging::answer(const PagingFault& fault) noexcept {
  // Left over from a kernel that was stopped.
  if (fault.session != word(*port_.session).load(std::memory_order_relaxed)) return;
  if (is_stopping()) return;
  const auto found = std::find_if(regions_.begin(), regions_.end(),
                                  [&](const PagedRegion* r) { return r->id() == fault.region; });
  assert(found != regions_.end());
  const GranuleIndex granule{fault.granule};
  const Status status = (*found)->serve(granule, fault.write != 0);
  if (!status.is_ok()) fail({static_cast<RegionId>(fault.region), status.offset, fault.write != 0, status});
}

/// Those who wait for a fault end, and so does everybody who touches a region from now on.
void Paging::fail(const Failure& failure) noexcept {
  {
    const sync::Lock lock(mutex_);
    if (failure_) return;
    failure_ = failure;
  }
  word(*port_.stop).store(1);
  for (const PagedRegion* region : regions_) post(close_of(region->table()));
}

void Paging::run_pagers() noexcept {
  std::uint64_t last = 0;
  for (;;) {
    {
      const sync::Lock lock(mutex_);
      while (session_ == last && !leaving_) changed_.wait(mutex_);
      if (session_ == last) return;
      last = session_;
    }
    const Status status = run_pager_(device_port_);
    if (!status.is_ok() && !broken_.load()) {
      broken_why_ = status;
      broken_.store(true, std::memory_order_release);
    }
    {
      const sync::Lock lock(mutex_);
      pager_runs_ = false;
    }
    changed_.notify_all();
  }
}

}  // namespace aprime::device

namespace aprime::detail {

void end_kernel_thread() noexcept {
  // Why is known to the host already, and told when the launch has ended.
  device::stop_current_kernel(
      device::fault_elsewhere(device::FaultReason::refused, 0, false, {Errc::kernel_failed, 0, {}}));
}

void end_outside_span(std::uint32_t region, std::uint64_t offset, bool write) noexcept {
  device::stop_current_kernel(device::fault_in_file(
      device::FaultReason::outside_span, static_cast<device::RegionId>(region), ByteOffset{offset}, write));
}

}  // namespace aprime::detail
