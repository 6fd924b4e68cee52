#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>
#include <vector>

#include "host/engine/coherent_file.hpp"

// A page that the kernel asks for stays locked until it has the answer, and a recall waits for the lock: no
// request for a page may wait for a recall. What makes that safe is that a granule under recall is still the
// mount's, so that home is its newest copy; and that the page, which the recall may have passed by, is noted,
// so that the recall looks once more before it gives the granule to anybody. What was asked for before a
// round of the recall began it has not passed by: the page was in the kernel's cache, locked, and was waited
// for.
//
// Programs that ask again each time sooner than the recall looks would keep it for ever: after a few rounds
// it leaves them a pause, and they are given their pages a little later.

namespace aprime::engine {
namespace {

/// A recall that has looked so often whether pages were asked for is one that programs keep up with.
constexpr unsigned kRecallRoundsMax = 4;
/// Before its next look: what was asked for meanwhile has arrived when it begins.
constexpr std::chrono::microseconds kRecallPause{200};
/// Longer than that and a look take together; no more, for the page is locked, and the recall may have to
/// wait for it.
constexpr std::chrono::milliseconds kRecallLead{1};

bool has_device(coherence::AgentSet agents) noexcept {
  return !agents.without(AgentId::cpu()).without(AgentId::mount()).empty();
}

}  // namespace

Status CoherentFile::page_in(GranuleRange granules, bool is_guess) noexcept {
  const Demand demand{.event = Event::read,
                      .requester = AgentId::mount(),
                      .patience = is_guess ? Patience::at_once : Patience::unless_recalled};
  const bool from_devices = !is_guess || is_near_use(granules);
  const std::uint64_t arrived = recall_rounds_.load();
  while (!granules.empty()) {
    const Status not_now{Errc::resources, EAGAIN, granule_.offset_of(granules.first)};
    if (!from_devices && any_on_device(granules)) return not_now;
    const Status status = perform(granules, demand);
    if (!status.is_ok()) return status;
    if (outrun_recalls_.load() != 0 && any_busy(granules)) {
      if (is_guess) return not_now;
      std::this_thread::sleep_for(kRecallLead);
    }
    const Progress noted = note_mounted(granules, arrived);
    if (!noted.status.is_ok()) return noted.status;
    granules = {granules.first + noted.done, granules.count - noted.done};
    if (is_guess && !granules.empty()) return not_now;
  }
  return {};
}

/// Up to the first that is not the mount's, or not any more. `arrived`: how many rounds of recalls had begun
/// when the request for their pages was looked at first.
Progress CoherentFile::note_mounted(GranuleRange granules, std::uint64_t arrived) noexcept {
  const sync::Lock lock(late_mutex_);
  for (std::uint64_t i = 0; i < granules.count.value; ++i) {
    const GranuleIndex g = granules.first + GranuleCount{i};
    const GranuleWord w = directory_.load(g);
    if (!w.state().owner.is_mount()) return {GranuleCount{i}, {}};
    // Before the kernel has the page, and so before anybody can store to it.
    mounted_.mark({g, GranuleCount{1}});
    // A recall that begins later finds the page in the kernel's cache, locked until it is there.
    if (!w.busy() || recalls_ == 0) continue;
    try {
      late_pages_.push_back({g, arrived});
    } catch (const std::bad_alloc&) {
      return {GranuleCount{i}, {Errc::resources, ENOMEM, granule_.offset_of(g)}};
    }
  }
  return {granules.count, {}};
}

bool CoherentFile::any_busy(GranuleRange granules) const noexcept {
  for (GranuleIndex g = granules.first; g < granules.end(); ++g.value)
    if (directory_.load(g).busy()) return true;
  return false;
}

bool CoherentFile::any_on_device(GranuleRange granules) const noexcept {
  for (GranuleIndex g = granules.first; g < granules.end(); ++g.value)
    if (has_device(directory_.load(g).state().holders())) return true;
  return false;
}

bool CoherentFile::has_place_on_device(GranuleIndex g) const noexcept {
  return g.value < granules_on_devices_.load() &&
         std::any_of(regions_.begin(), regions_.end(), [g](const auto& r) { return r->has_frame(g); });
}

/// Whether a program has pages of what the kernel guesses that it will use, or of what comes before that:
/// then it is likely to go on there. The kernel guesses up to one window ahead of the page that is used next.
bool CoherentFile::is_near_use(GranuleRange guess) const noexcept {
  const std::uint64_t before = std::min(guess.first.value, guess.count.value + 1);
  for (std::uint64_t g = guess.first.value - before; g < guess.end().value; ++g)
    if (directory_.load(GranuleIndex{g}).state().owner.is_mount()) return true;
  return false;
}

Status CoherentFile::recall(Run& run, AgentId requester) noexcept {
  const os::FileIdentity identity = file_.identity();
  {
    const sync::Lock lock(late_mutex_);
    ++recalls_;
  }
  for (unsigned rounds = 1;; ++rounds) {
    if (rounds == kRecallRoundsMax) outrun_recalls_.fetch_add(1);
    if (rounds >= kRecallRoundsMax) std::this_thread::sleep_for(kRecallPause);
    const std::uint64_t round = recall_rounds_.fetch_add(1) + 1;
    mount_.with(0, [&](MountPort& mount) {
      mount.recall(identity, granule_.bytes_of(run.range));
      return 0;
    });
    const sync::Lock lock(late_mutex_);
    bool was_passed_by = false;
    std::erase_if(late_pages_, [&](const LatePage& page) {
      const bool is_here = page.granule >= run.range.first && page.granule < run.range.end();
      was_passed_by |= is_here && page.arrived >= round;
      return is_here;
    });
    if (was_passed_by) continue;
    if (--recalls_ == 0) late_pages_.clear();
    if (rounds >= kRecallRoundsMax) outrun_recalls_.fetch_sub(1);
    unsynced_.mark(run.range);
    return settle(run, {run.range.count, {}}, Step::protect, requester);
  }
}

Status CoherentFile::recall_all(GranuleRange range, Event event) noexcept {
  Status first_error;
  // Another's marks are that one's to see to: its recalls must have ended before our caller's sync goes on.
  const sync::Lock lock(recall_all_mutex_);
  mounted_.take_each([&](GranuleIndex g) {
    const bool is_asked_for = g >= range.first && g < range.end();
    if (is_asked_for && directory_.load(g).state().owner.is_mount()) {
      const Status status = perform({g, GranuleCount{1}}, {.event = event});
      if (first_error.is_ok()) first_error = status;
    }
    if (directory_.load(g).state().owner.is_mount()) mounted_.mark({g, GranuleCount{1}});
  });
  return first_error;
}

Status CoherentFile::page_out(ByteOffset at, std::span<const std::byte> from) noexcept {
  const ByteRange range{at, ByteCount{from.size()}};
  // The mount's, or being recalled from it: nobody else uses home until the kernel has its answer.
  const Storing storing(*this);
  const Status status = file_.write(at, from);
  // Not before: a sync that came in between would take the mark for bytes that were not there yet.
  unsynced_.mark(granule_.covering(range));
  return status;
}

Status CoherentFile::do_mounts_own(Run& run, const Demand& demand) noexcept {
  const Storing storing(*this);
  const Status status = demand.io->on_home(run.range);
  if (demand.event != Event::io_read && demand.event != Event::bounce_read) unsynced_.mark(run.range);
  let_go(run.range, false);
  if (!status.is_ok()) run.range.count = GranuleCount{0};
  return status;
}

}  // namespace aprime::engine
