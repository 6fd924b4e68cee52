#pragma once

#include "aprime/detail/device_atomics.hpp"
#include "aprime/detail/paging.hpp"
#include "aprime/grid.hpp"
#include "aprime/kernel.hpp"

// Faults from inside a running kernel: what device threads do. A thread that misses asks the host, and while
// it waits it executes what the host asks of any device thread, so that faults are served whatever else runs
// on the device; a small kernel of our own (PagerKernel) does the same beside it, so that the host can take
// rights away while nobody waits. One warp works on one command; several copy at the same time.
//
// Functions that take a WarpLanes are called by all of its lanes together.

namespace aprime::detail {

#ifndef __CUDACC__
// Defined by the emulated devices.

/// Ends the calling kernel thread, and with it the kernel.
[[noreturn]] void end_kernel_thread() noexcept;
/// The same, for an access beyond what the launch was given.
[[noreturn]] void end_outside_span(std::uint32_t region, std::uint64_t offset, bool write) noexcept;
#else
/// Leaves a kernel that is to end. Barriers count threads that ended as arrived.
[[noreturn]] APRIME_DEVICE inline void end_kernel_thread() noexcept {
  asm volatile("exit;");
  __builtin_unreachable();
}
#endif

/// Lanes of a warp that do something together, and the caller's place among them.
struct WarpLanes {
  unsigned mask;
  unsigned own;

  APRIME_DEVICE unsigned leader() const noexcept {
    return static_cast<unsigned>(__ffs(static_cast<int>(mask))) - 1;
  }
  APRIME_DEVICE bool leads() const noexcept { return own == leader(); }
  APRIME_DEVICE unsigned count() const noexcept { return static_cast<unsigned>(__popc(mask)); }
  /// 0 for the leader.
  APRIME_DEVICE unsigned rank() const noexcept {
    return static_cast<unsigned>(__popc(mask & ((1U << own) - 1)));
  }
  /// The leader's value, for all.
  template <class T>
  APRIME_DEVICE T broadcast(T value) const noexcept {
    return __shfl_sync(mask, value, static_cast<int>(leader()));
  }
  /// Orders what each lane did before with what the others do after.
  APRIME_DEVICE void sync() const noexcept { __syncwarp(mask); }
};

APRIME_DEVICE inline unsigned lane_number() noexcept {
  // Qualified, because this namespace has the emulated device's variables of these names.
  const unsigned row = ::threadIdx.z * ::blockDim.y + ::threadIdx.y;
  return (row * ::blockDim.x + ::threadIdx.x) % warp_lanes;
}

/// The caller and those of its warp that are here for the same page-table entry.
APRIME_DEVICE inline WarpLanes lanes_at(const std::uint64_t* entry) noexcept {
  const auto key = static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(entry));
  return {__match_any_sync(__activemask(), key), lane_number()};
}

APRIME_DEVICE inline bool is_usable(std::uint64_t entry, bool write) noexcept {
  return (entry & (write ? PageEntry::kWrite : PageEntry::kRead)) != 0 && (entry & PageEntry::kRevoking) == 0;
}

/// Tells the host that a command was executed. By one thread.
APRIME_DEVICE inline void finish_command(const PagingPort& port, std::uint64_t slot) noexcept {
  PagingCommand& command = port.commands[slot];
  const std::uint64_t number = SharedWord<std::uint64_t>(command.ready).load(order::relaxed);
  SharedWord<std::uint64_t>(command.done).store(number, order::release);
}

/// Completes a revocation if nobody has a pin any more. By one thread; several may try.
APRIME_DEVICE inline void complete_revocation(const PagingPort& port, std::uint64_t* entry) noexcept {
  DeviceWord<std::uint64_t> word(*entry);
  std::uint64_t seen = word.load(order::relaxed);
  while ((seen & PageEntry::kRevoking) != 0 && (seen & PageEntry::kPins) == 0) {
    const std::uint64_t left = (seen & PageEntry::kRevokingAll) != 0
                                   ? seen & PageEntry::kPending
                                   : seen & ~(PageEntry::kWrite | PageEntry::kRevoking);
    // The frame stays the granule's until the host has heard of it, and so does its place in `parked`.
    const std::uint64_t frame = seen >> PageEntry::kFrameShift;
    if (!word.compare_exchange_weak(seen, left, order::acq_rel, order::relaxed)) continue;
    return finish_command(port, DeviceWord<std::uint32_t>(port.parked[frame]).load(order::relaxed));
  }
}

/// Removes the pins of `count` threads. By one thread, after all that they did.
APRIME_DEVICE inline void unpin(const PagingPort& port, std::uint64_t* entry, std::uint64_t count) noexcept {
  const std::uint64_t before = DeviceWord<std::uint64_t>(*entry).fetch_sub(count, order::acq_rel);
  if ((before & PageEntry::kRevoking) != 0 && (before & PageEntry::kPins) == count)
    complete_revocation(port, entry);
}

/// Sixteen bytes a lane and step. Both addresses are multiples of 16.
APRIME_DEVICE inline void copy_bytes(std::byte* to, const std::byte* from, std::uint64_t bytes,
                                     WarpLanes lanes) noexcept {
  struct alignas(16) Word {
    std::uint64_t low;
    std::uint64_t high;
  };
  auto* const target = reinterpret_cast<Word*>(to);
  const auto* const source = reinterpret_cast<const Word*>(from);
  for (std::uint64_t i = lanes.rank(); i < bytes / sizeof(Word); i += lanes.count())
    target[i] = source == nullptr ? Word{0, 0} : source[i];
}

/// By one thread.
APRIME_DEVICE inline void set_entry(const PagingPort& port, const PagingCommand& command) noexcept {
  DeviceWord<std::uint64_t> word(*command.entry);
  const std::uint64_t answered =
      (command.value & PageEntry::kWrite) != 0 ? PageEntry::kPending : PageEntry::kPendingRead;
  std::uint64_t seen = word.load(order::relaxed);
  // Pins: of threads that look, find no right, and remove them again.
  while (!word.compare_exchange_weak(
      seen, command.value | (seen & (PageEntry::kPins | (PageEntry::kPending & ~answered))), order::acq_rel,
      order::relaxed)) {
  }
  // A revocation that the host has given up on.
  if ((seen & PageEntry::kRevoking) != 0) finish_command(port, port.parked[seen >> PageEntry::kFrameShift]);
}

/// Begins to take a right. By one thread. The command is finished by whoever removes the last pin.
APRIME_DEVICE inline void begin_revocation(const PagingPort& port, const PagingCommand& command,
                                           std::uint64_t slot) noexcept {
  DeviceWord<std::uint32_t>(port.parked[command.frame])
      .store(static_cast<std::uint32_t>(slot), order::relaxed);
  const std::uint64_t how =
      PageEntry::kRevoking | (command.op == PagingOp::revoke ? PageEntry::kRevokingAll : 0);
  DeviceWord<std::uint64_t>(*command.entry).fetch_or(how, order::acq_rel);
  complete_revocation(port, command.entry);
}

/// One entry after the other, by all lanes.
APRIME_DEVICE inline void change_table(const PagingPort& port, const PagingCommand& command,
                                       WarpLanes lanes) noexcept {
  const bool closes = command.op == PagingOp::close;
  const std::uint64_t kept =
      closes ? ~(PageEntry::kRead | PageEntry::kWrite | PageEntry::kPending) : ~PageEntry::kPins;
  for (std::uint64_t i = lanes.rank(); i < command.value; i += lanes.count()) {
    DeviceWord<std::uint64_t>(command.entry[i]).fetch_and(kept, order::acq_rel);
    if (!closes) complete_revocation(port, &command.entry[i]);
  }
}

APRIME_DEVICE inline void execute_command(const PagingPort& port, std::uint64_t slot,
                                          WarpLanes lanes) noexcept {
  const PagingCommand& command = port.commands[slot];
  std::byte* const frame = port.frames + command.frame_at;
  std::byte* const staging = port.staging + command.staging_at;
  switch (command.op) {
    case PagingOp::copy_in: copy_bytes(frame, staging, command.bytes, lanes); break;
    case PagingOp::copy_out: copy_bytes(staging, frame, command.bytes, lanes); break;
    case PagingOp::zero: copy_bytes(frame, nullptr, command.bytes, lanes); break;
    case PagingOp::set:
      if (lanes.leads()) set_entry(port, command);
      break;
    case PagingOp::protect:
    case PagingOp::revoke:
      lanes.sync();  // finished at any moment from now on, and then the slot is the host's
      if (lanes.leads()) begin_revocation(port, command, slot);
      return;
    case PagingOp::answer:
      if (lanes.leads())
        DeviceWord<std::uint64_t>(*command.entry).fetch_and(~PageEntry::kPending, order::acq_rel);
      break;
    case PagingOp::close:
    case PagingOp::sweep: change_table(port, command, lanes); break;
  }
  lanes.sync();
  if (lanes.leads()) finish_command(port, slot);
}

/// Executes the host's next command, if there is one that nobody has taken. False if there was none.
APRIME_DEVICE inline bool serve_command(const PagingPort& port, WarpLanes lanes) noexcept {
  std::uint64_t taken = 0;
  if (lanes.leads()) {
    DeviceWord<std::uint64_t> polling(*port.polling);
    // One at a time: thousands of warps that wait would keep the bus busy with looking.
    if (polling.load(order::relaxed) == 0 && polling.exchange(1, order::acquire) == 0) {
      DeviceWord<std::uint64_t> next(*port.next_command);
      const std::uint64_t number = next.load(order::relaxed) + 1;
      PagingCommand& command = port.commands[(number - 1) % kPagingCommands];
      if (SharedWord<std::uint64_t>(command.ready).load(order::acquire) == number) {
        next.store(number, order::relaxed);
        taken = number;
      }
      polling.store(0, order::release);
    }
  }
  taken = lanes.broadcast(taken);
  if (taken == 0) return false;
  lanes.sync();
  execute_command(port, (taken - 1) % kPagingCommands, lanes);
  return true;
}

/// Asks the host for a right. By one thread.
APRIME_DEVICE inline void post_fault(const PagedWindow& window, std::uint64_t granule, bool write) noexcept {
  const PagingPort& port = *window.port;
  DeviceWord<std::uint64_t> next(*port.next_fault);
  // Whoever has a number must write its slot at once, for the host waits for it. So room is waited for first,
  // and half of the ring is there for those who find the same room.
  while (next.load(order::relaxed) - SharedWord<std::uint64_t>(*port.faults_taken).load(order::acquire) >=
         kPagingFaults / 2)
    __nanosleep(1000);
  const std::uint64_t number = next.fetch_add(1, order::relaxed);
  PagingFault& fault = port.faults[number % kPagingFaults];
  fault.granule = granule;
  fault.region = window.region;
  fault.write = write ? 1 : 0;
  fault.session = SharedWord<std::uint64_t>(*port.session).load(order::relaxed);
  SharedWord<std::uint64_t>(fault.ready).store(number + 1, order::release);
}

/// Waits until the host has answered. Ends the thread if the kernel is to end.
APRIME_DEVICE inline void wait_for_right(const PagedWindow& window, std::uint64_t granule, bool write,
                                         WarpLanes lanes) noexcept {
  const PagingPort& port = *window.port;
  DeviceWord<std::uint64_t> entry(window.entries[granule]);
  const std::uint64_t pending = write ? PageEntry::kPendingWrite : PageEntry::kPendingRead;
  if (lanes.leads() && (entry.fetch_or(pending, order::relaxed) & pending) == 0)
    post_fault(window, granule, write);
  // Thousands of warps may wait here. All that they look at again and again is device memory: loads from the
  // host's would fill the bus, which is there for the bytes that they wait for.
  constexpr unsigned kRoundsBetweenStops = 64;
  for (unsigned round = 0;; ++round) {
    enum : unsigned { waiting, answered, stopping } state = waiting;
    if (lanes.leads()) {
      const std::uint64_t seen = entry.load(order::relaxed);
      if (round % kRoundsBetweenStops == 0 &&
          SharedWord<std::uint64_t>(*port.stop).load(order::relaxed) != 0) {
        state = stopping;
      } else if (is_usable(seen, write) || (seen & pending) == 0) {
        state = answered;
      }
    }
    const unsigned outcome = lanes.broadcast(static_cast<unsigned>(state));
    if (outcome == stopping) end_kernel_thread();
    if (outcome == answered) return;
#ifdef __CUDACC__
    const bool served = serve_command(port, lanes);
#else
    // Alone, because a block that is stopped ends wherever its threads wait for one another, and a command
    // that was begun has to be finished.
    const bool served = lanes.leads() && serve_command(port, {1U << lanes.own, lanes.own});
#endif
    if (!served) __nanosleep(500);
  }
}

/// Pins a granule for all lanes, and says where its bytes are.
APRIME_DEVICE inline std::byte* pin(const PagedWindow& window, std::uint64_t granule, bool write,
                                    WarpLanes lanes) noexcept {
  std::uint64_t* const entry = &window.entries[granule];
  for (;;) {
    std::uint64_t seen = 0;
    if (lanes.leads()) {
      seen = DeviceWord<std::uint64_t>(*entry).load(order::relaxed);
      if (is_usable(seen, write)) {
        seen = DeviceWord<std::uint64_t>(*entry).fetch_add(lanes.count() * PageEntry::kPin, order::acquire);
        if (!is_usable(seen, write)) {
          unpin(*window.port, entry, lanes.count());
          seen = 0;
        }
      } else {
        seen = 0;
      }
    }
    seen = lanes.broadcast(seen);
    if (seen != 0) {
      lanes.sync();
      return window.frames + ((seen >> PageEntry::kFrameShift) << window.log2_frame);
    }
    wait_for_right(window, granule, write, lanes);
  }
}

/// Ends the thread because of an access beyond what the launch was given.
[[noreturn]] APRIME_DEVICE inline void fail_outside(const PagedWindow& window, std::uint64_t offset,
                                                    bool write) noexcept {
#ifndef __CUDACC__
  if (window.port == nullptr) end_outside_span(window.region, offset, write);
#endif
  const PagingPort& port = *window.port;
  const std::uint64_t session = SharedWord<std::uint64_t>(*port.session).load(order::relaxed);
  DeviceWord<std::uint64_t> failed(*port.failed);
  std::uint64_t last = failed.load(order::relaxed);
  if (last != session && failed.compare_exchange_strong(last, session, order::relaxed, order::relaxed)) {
    port.failure->offset = offset;
    port.failure->region = window.region;
    port.failure->write = write ? 1 : 0;
    SharedWord<std::uint64_t>(port.failure->session).store(session, order::release);
  }
  end_kernel_thread();
}

/// Serves the host while another kernel runs. Blocks of one warp, or of fewer threads.
struct PagerKernel {
  APRIME_DEVICE void operator()(const PagingPort* port) const noexcept {
    const WarpLanes lanes{~0U >> (warp_lanes - ::blockDim.x), lane_number()};
    for (;;) {
      if (serve_command(*port, lanes)) continue;
      const auto leave =
          lanes.leads() ? SharedWord<std::uint64_t>(*port->pager_leave).load(order::acquire) : 0;
      if (lanes.broadcast(leave) != 0) return;
      __nanosleep(1000);
    }
  }
};

}  // namespace aprime::detail
