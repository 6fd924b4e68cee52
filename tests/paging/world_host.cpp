#include <algorithm>

#include "tests/paging/world.hpp"

// The host's side: the engine, the region and Paging.

namespace aprime::explored {

using detail::PageEntry;
using detail::PagingOp;

void World::begin_use(std::uint64_t g) noexcept {
  explorer_.wait_until([&] { return !known_[g].is_busy; });
  known_[g].is_busy = true;
}

void World::end_use(std::uint64_t g) noexcept {
  known_[g].is_busy = false;
  explorer_.changed();
}

void World::host_add(std::uint64_t g) noexcept {
  begin_use(g);
  if (known_[g].frame != kNoFrame) bring_home(g, PagingOp::revoke);
  explorer_.step();
  ++begun_[g];
  ++home_[g][1];
  ++ended_[g];
  end_use(g);
}

void World::host_read(std::uint64_t g) noexcept {
  const std::uint64_t ended = ended_[g];
  begin_use(g);
  if (known_[g].is_home_stale) bring_home(g, PagingOp::protect);
  explorer_.step();
  const Granule seen = home_[g];
  end_use(g);
  expect_current(g, ended, seen);
}

void World::host_add_through_copy(std::uint64_t g) noexcept {
  begin_use(g);
  if (!known_[g].is_home_stale) {
    end_use(g);
    return host_add(g);
  }
  ++begun_[g];
  take(g, PagingOp::revoke);
  const bool by_commands = begin_operation();
  if (by_commands) {
    Command command = about(g, PagingOp::copy_out);
    await(post(command));
    ++staging_[g][1];
    command.op = PagingOp::copy_in;
    await(post(command));
  } else {
    ++frames_[known_[g].frame][1];
  }
  ++ended_[g];
  end_operation();
  publish(g, PageEntry::kRead);
  end_use(g);
}

void World::evict(std::uint64_t g) noexcept {
  begin_use(g);
  if (known_[g].frame != kNoFrame) bring_home(g, PagingOp::revoke);
  end_use(g);
}

void World::prefetch(std::uint64_t g) noexcept { static_cast<void>(serve(g, false)); }

void World::bring_home(std::uint64_t g, PagingOp op) noexcept {
  const bool copies_first = options_.flaw == Flaw::copies_before_revoking;
  if (copies_first && known_[g].is_home_stale) copy_out(g);
  take(g, op);
  if (!copies_first && known_[g].is_home_stale) copy_out(g);
  known_[g].is_home_stale = false;
  if (op == PagingOp::protect) return;
  is_frame_free_[known_[g].frame] = true;
  known_[g].frame = kNoFrame;
  explorer_.changed();
}

/// Another granule's, if there is no free one.
void World::take_frame(std::uint64_t g) noexcept {
  explorer_.wait_until([&] {
    const auto free = std::find(is_frame_free_.begin(), is_frame_free_.end(), true);
    if (free == is_frame_free_.end()) {
      for (std::uint64_t other = 0; other < options_.granules; ++other)
        if (other != g && try_evict(other)) break;
      return false;
    }
    *free = false;
    known_[g].frame = static_cast<std::size_t>(free - is_frame_free_.begin());
    return true;
  });
}

bool World::try_evict(std::uint64_t g) noexcept {
  if (known_[g].is_busy || known_[g].frame == kNoFrame) return false;
  known_[g].is_busy = true;
  bring_home(g, PagingOp::revoke);
  end_use(g);
  return true;
}

bool World::begin_operation() noexcept {
  explorer_.step();
  ++operations_;
  return in_session_;
}

void World::end_operation() noexcept {
  --operations_;
  explorer_.changed();
}

void World::fill(std::uint64_t g) noexcept {
  const bool by_commands = begin_operation();
  known_[g].rights = PageEntry::kRead;
  if (by_commands) {
    staging_[g] = home_[g];
    await(post(about(g, PagingOp::fill)));
    if (words_.stop != 0 && options_.flaw != Flaw::leaves_late_rights)
      await(post({.op = PagingOp::close, .entry = &entries_[g], .value = 1}));
  } else {
    frames_[known_[g].frame] = home_[g];
  }
  end_operation();
}

void World::publish(std::uint64_t g, std::uint64_t rights) noexcept {
  const bool by_commands = begin_operation();
  known_[g].rights = rights;
  if (by_commands) {
    await(post(about(g, PagingOp::set)));
    if (words_.stop != 0 && options_.flaw != Flaw::leaves_late_rights)
      await(post({.op = PagingOp::close, .entry = &entries_[g], .value = 1}));
  }
  end_operation();
}

void World::take(std::uint64_t g, PagingOp op) noexcept {
  if (begin_operation()) {
    const Command command = about(g, op);
    await_release(post(command), command);
  }
  known_[g].rights = op == PagingOp::revoke ? 0 : known_[g].rights & PageEntry::kRead;
  end_operation();
}

void World::copy_out(std::uint64_t g) noexcept {
  if (begin_operation()) {
    await(post(about(g, PagingOp::copy_out)));
    home_[g] = staging_[g];
  } else {
    home_[g] = frames_[known_[g].frame];
  }
  end_operation();
}

World::Command World::about(std::uint64_t g, PagingOp op) noexcept {
  return {.op = op,
          .bytes = sizeof(Granule),
          .entry = &entries_[g],
          .value = entry_of(g),
          .frame_at = known_[g].frame * sizeof(Granule),
          .staging_at = g * sizeof(Granule)};
}

std::uint64_t World::entry_of(std::uint64_t g) const noexcept {
  return known_[g].rights == 0 ? 0 : known_[g].frame << PageEntry::kFrameShift | known_[g].rights;
}

std::uint64_t World::post(const Command& command) noexcept {
  const std::uint64_t ticket = next_ticket_++;
  Command& slot = slot_of(ticket);
  if (ticket >= detail::kPagingCommands) await(ticket - detail::kPagingCommands);
  slot.op = command.op;
  slot.bytes = command.bytes;
  slot.entry = command.entry;
  slot.value = command.value;
  slot.frame_at = command.frame_at;
  slot.staging_at = command.staging_at;
  detail::SharedWord<std::uint64_t>(slot.ready).store(ticket + 1, detail::order::release);
  return ticket;
}

World::Command& World::slot_of(std::uint64_t ticket) const noexcept {
  return port_.commands[ticket % detail::kPagingCommands];
}

/// Also if others have the slot since.
bool World::is_done(std::uint64_t ticket) const noexcept { return slot_of(ticket).done >> 1 > ticket; }

void World::await(std::uint64_t ticket) noexcept {
  explorer_.wait_until([&] { return is_done(ticket); });
}

void World::await_release(std::uint64_t ticket, const Command& command) noexcept {
  for (;;) {
    await(ticket);
    if (slot_of(ticket).done == (ticket + 1) << 1 || options_.flaw == Flaw::uses_pinned_frames) return;
    if (options_.flaw == Flaw::never_asks_again)
      explorer_.wait_until([&] { return (slot_of(ticket).done & 1) == 0; });
    explorer_.sleep();
    ticket = post(command);
  }
}

void World::serve_faults() noexcept {
  std::uint64_t& taken = words_.faults_taken;
  for (;;) {
    const auto slot = [&]() -> const detail::PagingFault& {
      return port_.faults[taken % detail::kPagingFaults];
    };
    const auto is_there = [&] { return slot().ready == taken + 1; };
    explorer_.wait_until([&] { return !is_active_ || is_there(); });
    if (!is_active_) return;
    const detail::PagingFault fault = slot();
    ++taken;
    explorer_.changed();
    if (options_.flaw == Flaw::forgets_a_fault && ++faults_served_ == 2) continue;
    ++serving_;
    if (words_.stop == 0 && !serve(fault.granule, fault.write != 0)) fail();
    --serving_;
    explorer_.changed();
  }
}

bool World::serve(std::uint64_t g, bool write) noexcept {
  if (g == options_.bad_granule) return false;
  begin_use(g);
  const std::uint64_t wanted = write ? PageEntry::kReadWrite : PageEntry::kRead;
  const bool is_missing = known_[g].frame == kNoFrame;
  if (is_missing) {
    take_frame(g);
    fill(g);
  }
  if ((known_[g].rights & wanted) != wanted) {
    publish(g, PageEntry::kReadWrite);
    known_[g].is_home_stale = true;
  }
  end_use(g);
  return true;
}

void World::fail() noexcept {
  explorer_.step();
  words_.stop = 1;
  post({.op = PagingOp::close, .entry = entries_.data(), .value = entries_.size()});
}

/// Waits for the kernel, and ends the session as Paging does.
void World::launch() noexcept {
  explorer_.wait_until([&] { return kernels_ == 0; });
  if (words_.stop != 0)
    await(post({.op = PagingOp::sweep, .entry = entries_.data(), .value = entries_.size()}));
  explorer_.wait_until([&] { return operations_ == 0; });
  in_session_ = false;
  is_active_ = false;
  explorer_.changed();
  explorer_.wait_until([&] { return serving_ == 0; });
  detail::SharedWord<std::uint64_t>(words_.pager_leave).store(1, detail::order::release);
}

}  // namespace aprime::explored
