#pragma once

#include "aprime/detail/device_atomics.hpp"
#include "aprime/detail/pager.hpp"
#include "aprime/detail/paging.hpp"
#include "aprime/detail/unpinned_load.hpp"
#include "aprime/detail/warp_lanes.hpp"
#include "aprime/kernel.hpp"

// How a kernel's threads get at bytes through the page table: faults, pins, and loads without a pin. A thread
// that misses asks the host, and waits.
//
// Functions that take WarpLanes are called by all of its lanes together.

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

/// What lanes want of an entry. They do it together if they want the same: those that only came to the same
/// place in the program may go on to different ones.
enum class Want : unsigned { read, write, unpin };

/// The caller and those of its warp that are here with the same want of the same page-table entry.
APRIME_DEVICE inline WarpLanes lanes_at(const std::uint64_t* entry, Want want) noexcept {
  // Entries are words, so that their addresses have room for it.
  const auto key =
      static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(entry)) | static_cast<unsigned>(want);
  return {__match_any_sync(__activemask(), key), lane_number()};
}

APRIME_DEVICE inline bool is_usable(std::uint64_t entry, bool write) noexcept {
  return (entry & (write ? PageEntry::kWrite : PageEntry::kRead)) != 0 && (entry & PageEntry::kRevoking) == 0;
}

/// Removes the pins of `count` threads. By one thread, after all that they did.
APRIME_DEVICE inline void unpin(std::uint64_t* entry, std::uint64_t count) noexcept {
  const std::uint64_t before = DeviceWord<std::uint64_t>(*entry).fetch_sub(count, order::release);
  if ((before & PageEntry::kRevoking) != 0 && (before & PageEntry::kPins) == count)
    complete_revocation(entry);
}

/// Asks the host for a right. By one thread.
APRIME_DEVICE inline void post_fault(const PagedWindow& window, std::uint64_t granule, bool write) noexcept {
  const PagingPort& port = *window.port;
  DeviceWord<std::uint64_t> next(*port.next_fault);
  // Whoever has a number must write its slot at once, for the host waits for it. So room is waited for first,
  // and most of the ring is there for those who find the same room. What the host has read it is asked only
  // if what is known of it does not do.
  DeviceWord<std::uint64_t> known(*port.faults_known);
  while (next.load(order::relaxed) - known.load(order::relaxed) >= kPagingFaultsMost) {
    const std::uint64_t taken = SharedWord<std::uint64_t>(*port.faults_taken).load(order::acquire);
    std::uint64_t before = known.load(order::relaxed);
    while (before < taken && !known.compare_exchange_weak(before, taken, order::relaxed, order::relaxed)) {
    }
    __nanosleep(1000);
  }
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
  DeviceWord<std::uint64_t> waiting(*port.waiting);
  if (lanes.leads()) {
    waiting.fetch_add(1, order::relaxed);
    const std::uint64_t before = entry.fetch_or(pending, order::relaxed);
    if ((before & pending) == 0) {
      // It may have been given in the meantime. Nobody is asked then, so that nobody would answer those who
      // find that somebody has asked. (Should the mark be another's by now, he asks once more.)
      if (is_usable(before, write))
        entry.fetch_and(~pending, order::relaxed);
      else
        post_fault(window, granule, write);
    }
  }
  // Thousands of warps may wait here. All that they look at again and again is device memory: loads from the
  // host's would fill the bus, which is there for the bytes that they wait for.
  constexpr unsigned kRoundsBetweenStops = 64;
  // A pager that has room comes within so many rounds, and copies faster.
  constexpr unsigned kRoundsWithoutPager = 40;
  // A tenth of the time that it has waited, or so: with thousands that look all the time those who serve them
  // came to nothing (commands took 1,000 µs on an H200, not 20).
  constexpr unsigned kPauseMax = 20'000;
  unsigned pause = 100;
  for (unsigned round = 0;;) {
    enum : unsigned { answered, stopping, helping } outcome = answered;
    // The other lanes wait for this one, and cost nothing meanwhile.
    while (lanes.leads()) {
      const std::uint64_t seen = entry.load(order::relaxed);
      outcome = answered;
      if (is_usable(seen, write) || (seen & pending) == 0) break;
      outcome = stopping;
      if (++round % kRoundsBetweenStops == 0 &&
          SharedWord<std::uint64_t>(*port.stop).load(order::relaxed) != 0)
        break;
      if (round >= kRoundsWithoutPager && DeviceWord<std::uint64_t>(*port.pagers).load(order::relaxed) == 0) {
#ifdef __CUDACC__
        outcome = helping;
        break;
#else
        // Alone, because a block that is stopped ends wherever its threads wait for one another, and a
        // command that was begun has to be finished.
        if (execute_command<1>(port, {1U << lanes.own, lanes.own})) continue;
#endif
      }
      __nanosleep(pause);
      if (pause < kPauseMax) pause += pause / 8;
    }
    const unsigned all = lanes.broadcast(static_cast<unsigned>(outcome));
    if (all != helping) {
      if (lanes.leads()) waiting.fetch_sub(1, order::relaxed);
      if (all == stopping) end_kernel_thread();
      return;
    }
    if (!execute_command<1>(port, lanes)) __nanosleep(pause);
  }
}

/// Pins a granule for all lanes, and says where its bytes are; null, and no pin, if the right is missing.
APRIME_DEVICE inline std::byte* try_pin(const PagedWindow& window, std::uint64_t granule, bool write,
                                        WarpLanes lanes) noexcept {
  std::uint64_t* const entry = &window.entries[granule];
  std::uint64_t seen = 0;
  if (lanes.leads()) {
    seen = DeviceWord<std::uint64_t>(*entry).fetch_add(lanes.count() * PageEntry::kPin, order::acquire);
    if (!is_usable(seen, write)) {
      unpin(entry, lanes.count());
      seen = 0;
    }
  }
  seen = lanes.broadcast(seen);
  if (seen == 0) return nullptr;
  lanes.sync();
  return window.frames + ((seen >> PageEntry::kFrameShift) << window.log2_frame);
}

/// The same, when the host has given the right. Where this returns, lanes with the pin may be made to wait
/// for others of their warp that want another granule, and wait for the host: see `use_pinned`.
APRIME_DEVICE inline std::byte* pin(const PagedWindow& window, std::uint64_t granule, bool write,
                                    WarpLanes lanes) noexcept {
  for (;;) {
    if (std::byte* const bytes = try_pin(window, granule, write, lanes)) return bytes;
    wait_for_right(window, granule, write, lanes);
  }
}

/// Calls `use(bytes)` while the granule is pinned for the caller.
///
/// Lanes of a warp that want different granules go round the loop at different times. A GPU lets those that
/// have left it wait for the others, and these may wait for the host to make room, which it can where there
/// is no pin: so nobody leaves the loop with one.
template <class Use>
APRIME_DEVICE void use_pinned(const PagedWindow& window, std::uint64_t granule, bool write, const Use& use) {
  std::uint64_t* const entry = &window.entries[granule];
  const WarpLanes lanes = lanes_at(entry, write ? Want::write : Want::read);
  for (unsigned done = 0; done == 0;) {
    if (std::byte* const bytes = try_pin(window, granule, write, lanes)) {
#ifdef __CUDACC__
      use(bytes);
      lanes.sync();
      if (lanes.leads()) unpin(entry, lanes.count());
#else
      // It may throw, or the kernel may be stopped there: none of the lanes may wait for another.
      struct Unpin {
        std::uint64_t* entry;
        ~Unpin() { unpin(entry, 1); }
      } const unpins{entry};
      use(bytes);
#endif
      done = 1;
    } else {
      wait_for_right(window, granule, write, lanes);
    }
    // Or the compiler would take the first branch out of the loop, behind the place where the lanes meet.
    asm volatile("" : "+r"(done));
  }
}

/// What a thread remembers of the entry that it looked at last. A guess: it may be of any age, and of any
/// granule, also of two at once.
struct EntryGuess {
  std::uint64_t entry = 0;
  std::uint64_t granule = ~std::uint64_t{0};
};

/// Whether what was loaded between two looks at an entry was of the copy that the first one showed, with all
/// that pins and rights may do meanwhile.
APRIME_DEVICE inline bool is_same_copy(std::uint64_t seen, std::uint64_t now) noexcept {
  constexpr std::uint64_t kCopy = ~(PageEntry::kGeneration - 1);  // frame and generation
  return ((seen ^ now) & kCopy) == 0 && (now & PageEntry::kRead) != 0;
}

/// Loads without a pin: looks at the entry, loads, and looks again whether the copy was there all the time.
/// So readers neither write to what they share nor keep the host waiting. The second look is the next load's
/// first. (A sequence lock, the entry being the sequence: a copy has its generation, which comes back after
/// 1024 copies of the same granule, each of which takes the host many times as long as a load takes. What is
/// not excluded: a thread that comes back to the granule exactly so many copies later, in the microsecond in
/// which the last one is put into the same frame. A look at the clock would end it.)
template <class T>
APRIME_DEVICE T load_validated(const PagedWindow& window, std::uint64_t at, EntryGuess& guess) noexcept {
  const std::uint64_t granule = at >> window.log2_granule;
  const std::uint64_t offset = at & ((std::uint64_t{1} << window.log2_granule) - 1);
  DeviceWord<std::uint64_t> entry(window.entries[granule]);
  std::uint64_t seen = guess.granule == granule ? guess.entry : entry.load(order::acquire);
  for (;;) {
    if ((seen & PageEntry::kRead) != 0) {
      const std::uint64_t frame = seen >> PageEntry::kFrameShift;
      const T value = load_unpinned<T>(window.unpinned_frames + (frame << window.log2_frame) + offset);
      const std::uint64_t now = entry.load(order::acquire);
      if (is_same_copy(seen, now)) {
        guess = {now, granule};
        return value;
      }
      seen = now;
    } else {
      wait_for_right(window, granule, false, lanes_at(&window.entries[granule], Want::read));
      seen = entry.load(order::acquire);
    }
  }
}

/// Tells the host of an access beyond what the launch was given; of one in each session.
APRIME_DEVICE inline void note_outside(const PagedWindow& window, std::uint64_t offset, bool write) noexcept {
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
}

/// Ends the thread because of such an access.
[[noreturn]] APRIME_DEVICE inline void fail_outside(const PagedWindow& window, std::uint64_t offset,
                                                    bool write) noexcept {
#ifndef __CUDACC__
  if (window.port == nullptr) end_outside_span(window.region, offset, write);
#endif
  note_outside(window, offset, write);
  end_kernel_thread();
}

}  // namespace aprime::detail
