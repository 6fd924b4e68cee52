#pragma once

#include <cstring>

#include "aprime/detail/device_atomics.hpp"
#include "aprime/detail/paging.hpp"
#include "aprime/detail/warp_lanes.hpp"
#include "aprime/grid.hpp"
#include "aprime/kernel.hpp"

// What the host asks of device threads while a kernel takes faults, and who does it: the warps of a small
// kernel of our own (PagerKernel), which runs beside the other one. Where that has no room, the threads that
// wait for a fault do it: so faults are served whatever else runs on the device.
//
// Of the pager's warps the first looks for commands of the host; it executes the small ones, and puts copies
// on a list, in pieces, for the others: the host's memory answers after a microsecond or more, so that only
// many warps together are as fast as the bus. Only one looks, because loads return to a multiprocessor in
// their order: one that waits for the host's memory holds up those of the program's kernel beside it (with 48
// that looked, kernels that faulted nowhere took four times as long on an H200).
//
// Functions that take WarpLanes are called by all of its lanes together.

namespace aprime::detail {

/// Tells the host that a command was executed, and whether pins keep it from what it wanted. By one thread.
APRIME_DEVICE inline void finish_command(const PagingPort& port, std::uint64_t number,
                                         bool is_pinned = false) noexcept {
  PagingCommand& slot = port.commands[(number - 1) % kPagingCommands];
  SharedWord<std::uint64_t>(slot.done).store(number << 1 | (is_pinned ? 1 : 0), order::release);
}

/// What is left of an entry that is revoked when nobody has a pin any more. Who waits for what stays has it.
APRIME_DEVICE inline std::uint64_t revoked(std::uint64_t entry) noexcept {
  return (entry & PageEntry::kRevokingAll) != 0
             ? (entry & PageEntry::kPending) | ((entry + PageEntry::kGeneration) & PageEntry::kGenerations)
             : entry & ~(PageEntry::kWrite | PageEntry::kRevoking | PageEntry::kPendingRead);
}

/// Completes a revocation if nobody has a pin any more. By one thread; several may try.
APRIME_DEVICE inline void complete_revocation(std::uint64_t* entry) noexcept {
  DeviceWord<std::uint64_t> word(*entry);
  std::uint64_t seen = word.load(order::relaxed);
  while ((seen & PageEntry::kRevoking) != 0 && (seen & PageEntry::kPins) == 0 &&
         !word.compare_exchange_weak(seen, revoked(seen), order::acq_rel, order::relaxed)) {
  }
}

/// What a lane copies at once.
struct alignas(kCopyWordBytes) CopyWord {
  std::uint64_t low;
  std::uint64_t high;
};
static_assert(sizeof(CopyWord) == kCopyWordBytes);

/// `depth` words a lane and step; zeros if `from` is null.
template <unsigned depth>
APRIME_DEVICE void copy_bytes(std::byte* to, const std::byte* from, std::uint64_t bytes,
                              WarpLanes lanes) noexcept {
  auto* const target = reinterpret_cast<CopyWord*>(to);
  const auto* const source = reinterpret_cast<const CopyWord*>(from);
  const std::uint64_t words = bytes / sizeof(CopyWord);
  const std::uint64_t step = lanes.count();
  for (std::uint64_t i = lanes.rank(); i < words; i += depth * step) {
    CopyWord held[depth];
    for (unsigned d = 0; d < depth; ++d) {
      held[d] = {0, 0};
      if (source != nullptr && i + d * step < words) held[d] = source[i + d * step];
    }
    for (unsigned d = 0; d < depth; ++d)
      if (i + d * step < words) target[i + d * step] = held[d];
  }
}

/// By one thread.
APRIME_DEVICE inline void set_entry(std::uint64_t* entry, std::uint64_t value) noexcept {
  DeviceWord<std::uint64_t> word(*entry);
  const std::uint64_t answered =
      (value & PageEntry::kWrite) != 0 ? PageEntry::kPending : PageEntry::kPendingRead;
  // Pins: of threads that look, find no right, and remove them again; or the host has given up a revocation.
  const std::uint64_t kept = PageEntry::kPins | PageEntry::kGenerations | (PageEntry::kPending & ~answered);
  std::uint64_t seen = word.load(order::relaxed);
  while (!word.compare_exchange_weak(seen, value | (seen & kept), order::acq_rel, order::relaxed)) {
  }
}

/// Takes the write right, or all; whether it is taken. Where there are pins it only begins, and whoever
/// removes the last one completes it: the host asks again. By one thread.
APRIME_DEVICE inline bool take_right(std::uint64_t* entry, PagingOp op) noexcept {
  const bool all = op == PagingOp::revoke;
  const std::uint64_t right = all ? PageEntry::kReadWrite : PageEntry::kWrite;
  const std::uint64_t how = PageEntry::kRevoking | (all ? PageEntry::kRevokingAll : 0);
  DeviceWord<std::uint64_t> word(*entry);
  std::uint64_t seen = word.load(order::acquire);
  for (;;) {
    // Taken before: the pins are of threads that look.
    if ((seen & (right | PageEntry::kRevoking)) == 0) return true;
    const bool is_free = (seen & PageEntry::kPins) == 0;
    const std::uint64_t left = is_free ? revoked(seen | how) : seen | how;
    if (word.compare_exchange_weak(seen, left, order::acq_rel, order::acquire)) return is_free;
  }
}

/// Takes every right at once, and lets those who wait for one look. By one thread.
APRIME_DEVICE inline void close_entry(std::uint64_t* entry) noexcept {
  DeviceWord<std::uint64_t> word(*entry);
  std::uint64_t seen = word.load(order::relaxed);
  for (;;) {
    std::uint64_t left = seen & ~(PageEntry::kReadWrite | PageEntry::kPending);
    // Those who have a pin may go on to use the frame: so it is not the host's before they have removed it.
    if ((seen & (PageEntry::kReadWrite | PageEntry::kRevoking)) != 0) {
      left |= PageEntry::kRevoking | PageEntry::kRevokingAll;
      if ((seen & PageEntry::kPins) == 0) left = revoked(left);
    }
    if (word.compare_exchange_weak(seen, left, order::acq_rel, order::relaxed)) return;
  }
}

APRIME_DEVICE inline bool is_about_a_table(PagingOp op) noexcept {
  return op == PagingOp::close || op == PagingOp::sweep;
}

/// Executes such a command, one entry after the other, by all lanes.
APRIME_DEVICE inline void change_table(const PagingPort& port, std::uint64_t number,
                                       WarpLanes lanes) noexcept {
  const PagingCommand& command = port.commands[(number - 1) % kPagingCommands];
  for (std::uint64_t i = lanes.rank(); i < command.value; i += lanes.count()) {
    if (command.op == PagingOp::close)
      close_entry(&command.entry[i]);
    else
      DeviceWord<std::uint64_t>(command.entry[i]).fetch_and(~PageEntry::kPins, order::acq_rel);
  }
  lanes.sync();
  if (lanes.leads()) finish_command(port, number);
}

/// 0 for what is no copy.
APRIME_DEVICE inline unsigned pieces_of(const PagingCommand& command) noexcept {
  return command.op <= PagingOp::fill ? static_cast<unsigned>((command.bytes + kPieceBytes - 1) / kPieceBytes)
                                      : 0;
}

/// Copies a piece that is on the list.
template <unsigned depth>
APRIME_DEVICE void copy_piece(const PagingPort& port, std::uint64_t number, WarpLanes lanes) noexcept {
  const CopyPiece piece = port.pieces[number % kPagingPieces];
  copy_bytes<depth>(piece.to, piece.from, piece.bytes, lanes);
  lanes.sync();
  if (!lanes.leads()) return;
  CopyJob& job = *piece.job;
  // What went to the host's memory is to be there when the host hears of it from whoever is the last.
  const std::uint32_t left = piece.goes_home != 0
                                 ? SharedWord<std::uint32_t>(job.left).fetch_sub(1, order::acq_rel)
                                 : DeviceWord<std::uint32_t>(job.left).fetch_sub(1, order::acq_rel);
  if (left != 1) return;
  if (job.entry != nullptr) set_entry(job.entry, job.value);
  finish_command(port, job.command);
}

/// Executes a whole copy.
template <unsigned depth>
APRIME_DEVICE void execute_copy(const PagingPort& port, const PagingCommand& command, std::uint64_t number,
                                WarpLanes lanes) noexcept {
  std::byte* const frame = port.frames + command.frame_at;
  std::byte* const staging = port.staging + command.staging_at;
  if (command.op == PagingOp::copy_out)
    copy_bytes<depth>(staging, frame, command.bytes, lanes);
  else
    copy_bytes<depth>(frame, command.op == PagingOp::zero ? nullptr : staging, command.bytes, lanes);
  // From here on the slot may be the host's again.
  const bool fills = command.op == PagingOp::fill;
  std::uint64_t* const entry = command.entry;
  const std::uint64_t value = command.value;
  lanes.sync();
  if (!lanes.leads()) return;
  if (fills) set_entry(entry, value);
  finish_command(port, number);
}

/// Puts a copy on the list, from place `at` on. By one thread.
APRIME_DEVICE inline void list_pieces(const PagingPort& port, const PagingCommand& command,
                                      std::uint64_t number, std::uint64_t at) noexcept {
  std::byte* const frame = port.frames + command.frame_at;
  std::byte* const staging = port.staging + command.staging_at;
  const bool goes_home = command.op == PagingOp::copy_out;
  const unsigned pieces = pieces_of(command);
  CopyJob& job = port.jobs[(number - 1) % kPagingCommands];
  job.entry = command.op == PagingOp::fill ? command.entry : nullptr;
  job.value = command.value;
  job.command = number;
  job.left = pieces;
  for (unsigned i = 0; i < pieces; ++i) {
    const std::uint64_t first = i * kPieceBytes;
    CopyPiece& piece = port.pieces[(at + i) % kPagingPieces];
    piece.to = (goes_home ? staging : frame) + first;
    piece.from = goes_home ? frame + first : command.op == PagingOp::zero ? nullptr : staging + first;
    piece.job = &job;
    piece.bytes =
        static_cast<std::uint32_t>(command.bytes - first < kPieceBytes ? command.bytes - first : kPieceBytes);
    piece.goes_home = goes_home ? 1 : 0;
  }
}

/// Executes what is neither a copy nor about a whole table. By one thread.
APRIME_DEVICE inline void execute_at_once(const PagingPort& port, const PagingCommand& command,
                                          std::uint64_t number) noexcept {
  if (command.op == PagingOp::set) {
    set_entry(command.entry, command.value);
    finish_command(port, number);
  } else if (command.op == PagingOp::protect || command.op == PagingOp::revoke) {
    finish_command(port, number, !take_right(command.entry, command.op));
  }
}

/// Becomes the only warp that looks for commands, unless there is one; the number of the next command, or 0.
/// By one thread.
APRIME_DEVICE inline std::uint64_t begin_polling(const PagingPort& port) noexcept {
  DeviceWord<std::uint64_t> next(*port.next_command);
  if ((next.load(order::relaxed) & kPollingCommands) != 0) return 0;
  const std::uint64_t before = next.fetch_or(kPollingCommands, order::look);
  return (before & kPollingCommands) != 0 ? 0 : before + 1;
}

/// Of the commands from number `first` on so many were taken, and `pieces` listed. By the same thread.
APRIME_DEVICE inline void end_polling(const PagingPort& port, std::uint64_t first, unsigned commands,
                                      std::uint64_t pieces) noexcept {
  DeviceWord<std::uint64_t> listed(*port.pieces_listed);
  if (pieces != 0) listed.store(listed.load(order::relaxed) + pieces, order::release);
  DeviceWord<std::uint64_t>(*port.next_command)
      .store(first - 1 + commands, commands != 0 ? order::release : order::relaxed);
}

APRIME_DEVICE inline bool is_there(const PagingPort& port, std::uint64_t number) noexcept {
  return SharedWord<std::uint64_t>(port.commands[(number - 1) % kPagingCommands].ready).load(order::look) ==
         number;
}

/// Takes commands that nobody has taken, up to one a lane: puts copies on the list, and executes the others.
APRIME_DEVICE inline bool take_commands(const PagingPort& port, WarpLanes lanes) noexcept {
  constexpr unsigned kLooks = 16;
  const std::uint64_t first = lanes.broadcast(lanes.leads() ? begin_polling(port) : 0);
  if (first == 0) return false;

  const std::uint64_t number = first + lanes.rank();
  const bool found = lanes.rank() < kLooks && is_there(port, number);
  const unsigned missing = lanes.mask & ~__ballot_sync(lanes.mask, found ? 1 : 0);
  // Those that are there without a gap.
  const unsigned taken = missing == 0 ? lanes.mask : lanes.mask & ((missing & (~missing + 1)) - 1);
  const bool has_one = (taken >> lanes.own & 1) != 0;
  if (taken != 0) acquire_seen_of_host();
  PagingCommand command;
  if (has_one) {
    // Field by field: nvcc copies the whole of it in bytes, 40 loads from the host's memory.
    const PagingCommand& slot = port.commands[(number - 1) % kPagingCommands];
    command.op = slot.op;
    command.bytes = slot.bytes;
    command.entry = slot.entry;
    command.value = slot.value;
    command.frame_at = slot.frame_at;
    command.staging_at = slot.staging_at;
  }

  const unsigned pieces = has_one ? pieces_of(command) : 0;
  std::uint64_t before = 0;
  std::uint64_t all = 0;
  for (unsigned rest = taken; rest != 0; rest &= rest - 1) {
    const unsigned lane = static_cast<unsigned>(__ffs(static_cast<int>(rest))) - 1;
    const unsigned of_lane = __shfl_sync(lanes.mask, pieces, static_cast<int>(lane));
    if (lane < lanes.own) before += of_lane;
    all += of_lane;
  }
  if (pieces != 0) {
    const std::uint64_t listed = DeviceWord<std::uint64_t>(*port.pieces_listed).load(order::relaxed);
    list_pieces(port, command, number, listed + before);
  }
  lanes.sync();
  if (lanes.leads()) end_polling(port, first, static_cast<unsigned>(__popc(taken)), all);
  if (has_one) execute_at_once(port, command, number);

  const bool is_table = has_one && is_about_a_table(command.op);
  for (unsigned rest = __ballot_sync(lanes.mask, is_table ? 1 : 0); rest != 0; rest &= rest - 1) {
    const int lane = __ffs(static_cast<int>(rest)) - 1;
    change_table(port, __shfl_sync(lanes.mask, number, lane), lanes);
  }
  return taken != 0;
}

/// Takes a command that nobody has taken, and executes it.
template <unsigned depth>
APRIME_DEVICE bool execute_command(const PagingPort& port, WarpLanes lanes) noexcept {
  std::uint64_t number = 0;
  if (lanes.leads()) {
    number = begin_polling(port);
    if (number != 0) {
      const bool found = is_there(port, number);
      if (found) acquire_seen_of_host();
      end_polling(port, number, found ? 1 : 0, 0);
      if (!found) number = 0;
    }
  }
  number = lanes.broadcast(number);
  if (number == 0) return false;
  lanes.sync();
  const PagingCommand& command = port.commands[(number - 1) % kPagingCommands];
  const bool is_copy = pieces_of(command) != 0;
  const bool is_table = is_about_a_table(command.op);
  // Whoever finishes it gives the slot back to the host: nobody may look into it any more then.
  lanes.sync();
  if (is_copy) {
    execute_copy<depth>(port, command, number, lanes);
  } else if (is_table) {
    change_table(port, number, lanes);
  } else if (lanes.leads()) {
    execute_at_once(port, command, number);
  }
  return true;
}

/// Serves the host while another kernel runs. Blocks of one warp, or of fewer threads: such a block finds
/// room beside most kernels. The first looks for commands, the others copy.
struct PagerKernel {
  static constexpr unsigned kDepth = 6;
  static constexpr unsigned kPauseMin = 100;

  APRIME_DEVICE void operator()(const PagingPort* port) const noexcept {
    const WarpLanes lanes{~0U >> (warp_lanes - ::blockDim.x), lane_number()};
    const bool looks = ::blockIdx.x == 0;
    DeviceWord<std::uint64_t> here(looks ? *port->pagers : *port->copiers);
    if (lanes.leads()) here.fetch_add(1, order::relaxed);
    if (looks)
      look(*port, lanes);
    else
      copy(*port, lanes);
    if (!lanes.leads()) return;
    if (looks) {
      // Threads of a kernel that was stopped are not missed.
      DeviceWord<std::uint64_t>(*port->waiting).store(0, order::relaxed);
      here.fetch_sub(1, order::relaxed);
    } else if (here.fetch_sub(1, order::acq_rel) == 1) {
      // Nobody waits for those pieces any more that copiers have said they would copy.
      const std::uint64_t listed = DeviceWord<std::uint64_t>(*port->pieces_listed).load(order::relaxed);
      DeviceWord<std::uint64_t>(*port->pieces_promised).store(listed, order::relaxed);
    }
  }

 private:
  APRIME_DEVICE static void look(const PagingPort& port, WarpLanes lanes) noexcept {
    // While nobody waits, it leaves the bus and its multiprocessor to others.
    constexpr unsigned kPauseMax = 6400;
    unsigned pause = kPauseMin;
    bool leaves = false;
    for (;;) {
      std::uint64_t waiting = 0;
      std::uint64_t copiers = 0;
      if (lanes.leads()) {
        waiting = DeviceWord<std::uint64_t>(*port.waiting).load(order::relaxed);
        copiers = DeviceWord<std::uint64_t>(*port.copiers).load(order::relaxed);
      }
      copiers = lanes.broadcast(copiers);
      if (copiers != 0 ? take_commands(port, lanes) : execute_command<kDepth>(port, lanes)) {
        pause = kPauseMin;
        continue;
      }
      // The host posts nothing after it has said so. What it posted before is there in a last look: left
      // over, it would be executed in the next session, on page tables that may be gone.
      if (leaves) return;
      leaves = is_to_leave(port, lanes);
      if (leaves) {
        acquire_seen_of_host();
        lanes.sync();
        continue;
      }
      __nanosleep(pause);
      if (lanes.broadcast(waiting) != 0)
        pause = kPauseMin;
      else if (pause < kPauseMax)
        pause *= 2;
    }
  }

  /// Says which piece it will copy before there is one: so nobody contends for it when it comes.
  APRIME_DEVICE static void copy(const PagingPort& port, WarpLanes lanes) noexcept {
    constexpr unsigned kPauseMax = 400;
    constexpr unsigned kRoundsBetweenLeaves = 64;
    for (;;) {
      const std::uint64_t piece = lanes.broadcast(
          lanes.leads() ? DeviceWord<std::uint64_t>(*port.pieces_promised).fetch_add(1, order::relaxed) : 0);
      unsigned pause = kPauseMin;
      for (unsigned round = 1;; ++round) {
        const std::uint64_t listed =
            lanes.leads() ? DeviceWord<std::uint64_t>(*port.pieces_listed).load(order::look) : 0;
        if (lanes.broadcast(listed) > piece) break;
        if (round % kRoundsBetweenLeaves == 0 && is_to_leave(port, lanes)) return;
        __nanosleep(pause);
        if (pause < kPauseMax) pause *= 2;
      }
      if (lanes.leads()) acquire_seen();
      lanes.sync();
      copy_piece<kDepth>(port, piece, lanes);
    }
  }

  APRIME_DEVICE static bool is_to_leave(const PagingPort& port, WarpLanes lanes) noexcept {
    return lanes.broadcast(lanes.leads() ? SharedWord<std::uint64_t>(*port.pager_leave).load(order::look)
                                         : 0) != 0;
  }
};

}  // namespace aprime::detail
