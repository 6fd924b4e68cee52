#include "tests/paging/world.hpp"

#include <algorithm>
#include <functional>
#include <utility>

#include "aprime/detail/pager.hpp"

namespace aprime::explored {
namespace {

using detail::PageEntry;
using detail::PagingOp;

/// Both rings begin anew soon after the beginning of a run.
constexpr std::uint64_t kFirstTicket = detail::kPagingCommands - 3;
constexpr std::uint64_t kFirstFault = detail::kPagingFaults - 1;

/// The parts of a port that are large. Each run leaves them as it has found them.
struct Rings {
  std::vector<detail::PagingCommand> commands{detail::kPagingCommands};
  std::vector<detail::PagingFault> faults{detail::kPagingFaults};
  std::vector<detail::CopyJob> jobs{detail::kPagingCommands};
  std::vector<detail::CopyPiece> pieces{detail::kPagingPieces};

  Rings() {
    for (std::uint64_t i = 0; i < kFirstTicket; ++i) reset_command(i);
  }
  /// To what it is before the first command of a run.
  void reset_command(std::uint64_t slot) {
    commands[slot] = {};
    if (slot < kFirstTicket) commands[slot].ready = slot + 1;
    if (slot < kFirstTicket) commands[slot].done = (slot + 1) << 1;
  }
};

Rings& rings() {
  static Rings rings;
  return rings;
}

}  // namespace

World::World(Explorer& explorer, const Options& options)
    : explorer_(explorer),
      options_(options),
      entries_(options.granules),
      frames_(options.frames),
      staging_(options.granules),
      home_(options.granules),
      is_frame_free_(options.frames, true),
      known_(options.granules),
      begun_(options.granules),
      ended_(options.granules) {
  current_ = this;
  Rings& shared = rings();
  for (std::uint64_t g = 0; g < options.granules; ++g) home_[g] = {tag(g), 0};
  words_.session = 1;
  words_.next_command = next_ticket_ = kFirstTicket;
  words_.next_fault = words_.faults_known = words_.faults_taken = kFirstFault;
  port_ = {.commands = shared.commands.data(),
           .faults = shared.faults.data(),
           .staging = reinterpret_cast<std::byte*>(staging_.data()),
           .faults_taken = &words_.faults_taken,
           .stop = &words_.stop,
           .pager_leave = &words_.pager_leave,
           .session = &words_.session,
           .failure = nullptr,
           .frames = reinterpret_cast<std::byte*>(frames_.data()),
           .next_command = &words_.next_command,
           .next_fault = &words_.next_fault,
           .faults_known = &words_.faults_known,
           .failed = &words_.failed,
           .waiting = &words_.waiting,
           .pagers = &words_.pagers,
           .copiers = &words_.copiers,
           .jobs = shared.jobs.data(),
           .pieces = shared.pieces.data(),
           .pieces_listed = &words_.listed,
           .pieces_promised = &words_.promised};
  window_ = {.base = nullptr,
             .entries = entries_.data(),
             .frames = port_.frames,
             .unpinned_frames = port_.frames,
             .port = &port_,
             .region = 0,
             .log2_granule = kLog2Granule,
             .log2_frame = kLog2Granule};
}

World::~World() {
  for (std::uint64_t t = kFirstTicket; t < next_ticket_; ++t)
    rings().reset_command(t % detail::kPagingCommands);
  for (std::uint64_t f = kFirstFault; f < words_.next_fault; ++f)
    rings().faults[f % detail::kPagingFaults] = {};
  current_ = nullptr;
}

void World::kernel(std::function<void(World&)> body) {
  ++kernels_;
  explorer_.thread([this, run = std::move(body)] {
    run(*this);
    kernel_thread_has_ended();
  });
}

void World::host(std::function<void(World&)> body) {
  explorer_.thread([this, run = std::move(body)] { run(*this); });
}

void World::begin() {
  const auto add_pager = [this](unsigned block) {
    explorer_.thread([this, block] {
      detail::blockIdx = {block, 0, 0};
      detail::PagerKernel{}(&port_);
    });
  };
  if (options_.has_pager) add_pager(0);
  for (unsigned i = 0; i < options_.copiers; ++i) add_pager(1 + i);
  for (unsigned i = 0; i < options_.servers; ++i) explorer_.thread([this] { serve_faults(); });
  explorer_.thread([this] { launch(); });
}

std::string World::check() const {
  for (std::uint64_t ticket = kFirstTicket; ticket < next_ticket_; ++ticket)
    if (!is_done(ticket)) return "a command was left over";
  for (std::uint64_t g = 0; g < options_.granules; ++g) {
    const Granule& bytes = known_[g].is_home_stale ? frames_[known_[g].frame] : home_[g];
    if ((entries_[g] & PageEntry::kPins) != 0) return "pins are left";
    if (bytes[0] != tag(g)) return "the bytes are another granule's";
    if (bytes[1] != ended_[g])
      return std::to_string(ended_[g]) + " additions were made, and " + std::to_string(bytes[1]) +
             " are there";
  }
  return {};
}

void World::expect(bool is_so, const char* otherwise) noexcept {
  if (!is_so) explorer_.fail(otherwise);
}

void World::expect_current(std::uint64_t g, std::uint64_t ended, const Granule& seen) noexcept {
  expect(seen[0] == tag(g), "another granule's bytes are seen");
  expect(seen[1] >= ended, "what is seen is too old");
  expect(seen[1] <= begun_[g], "what is seen was never stored");
}

void World::add(std::uint64_t g) noexcept {
  ++begun_[g];
  static_cast<void>(span().atomic_add(2 * g + 1, 1));
  ++ended_[g];
}

void World::add_pinned(std::uint64_t g) noexcept {
  ++begun_[g];
  {
    const auto pinned = span().pin_span(2 * g, 2);
    expect(pinned[0] == tag(g), "a pin shows another granule's bytes");
    // Atomic among device threads.
    const std::uint64_t stored = ++pinned[1];
    explorer_.step();
    expect(pinned[0] == tag(g) && pinned[1] >= stored, "a granule was taken in spite of a pin");
  }
  ++ended_[g];
}

void World::read(const Span& span, std::uint64_t g) noexcept {
  const std::uint64_t ended = ended_[g];
  const std::uint64_t first = span.load(2 * g);
  expect_current(g, ended, {first, span.load(2 * g + 1)});
}

void World::read_pinned(std::uint64_t g) noexcept {
  const std::uint64_t ended = ended_[g];
  const auto pinned = ConstSpan(span()).pin_span(2 * g, 2);
  const Granule seen{pinned[0], pinned[1]};
  explorer_.step();
  expect(pinned[0] == seen[0] && pinned[1] >= seen[1], "a granule was taken in spite of a pin");
  expect_current(g, ended, seen);
}

std::uint64_t stored_by_device(const std::uint64_t& word, std::uint64_t after) noexcept {
  return World::current()->stored(word, after);
}

std::uint64_t World::stored(const std::uint64_t& word, std::uint64_t after) const noexcept {
  const std::uint64_t before = word;
  const std::less<> is_before;
  if (is_before(&word, entries_.data()) || !is_before(&word, entries_.data() + entries_.size())) return after;
  switch (options_.flaw) {
    case Flaw::keeps_generation:
      return (after & ~PageEntry::kGenerations) | (before & PageEntry::kGenerations);
    case Flaw::forgets_pins: return (after & ~PageEntry::kPins) | (before & PageEntry::kPins);
    case Flaw::keeps_pending: return after | (before & PageEntry::kPending);
    case Flaw::keeps_read: return after | (before & PageEntry::kRead);
    default: return after;
  }
}

}  // namespace aprime::explored
