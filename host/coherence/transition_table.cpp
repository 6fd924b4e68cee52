#include "host/coherence/transition_table.hpp"

#include <array>
#include <cassert>

namespace aprime::coherence {
namespace {

using enum Step;
using K = Kind;
using E = Event;
using W = Who;

// "protect" comes before "copy_home" so that the bytes stand still while they are copied (rule 8);
// "copy_home" comes before any revocation so that a failed copy loses nothing; "revoke" comes before "fill"
// so that no store of the others can land in home after it was copied. One case, one line: a table to be read
// down its columns. clang-format off
constexpr std::array kTable{
    // cpu_exclusive: as if aprime were not there.
    Row{K::cpu_exclusive, E::read, W::cpu_with, {}},                                 // already granted
    Row{K::cpu_exclusive, E::read, W::device_without, {protect, fill}},              // rule 3
    Row{K::cpu_exclusive, E::read, W::mount_without, {revoke_others, grant_write}},  // presence is ownership
    Row{K::cpu_exclusive, E::write, W::cpu_with, {}},                                // already granted
    Row{K::cpu_exclusive, E::write, W::device_without, {revoke_others, fill, grant_write}},  // rule 4
    Row{K::cpu_exclusive, E::write, W::mount_without, {revoke_others, grant_write}},  // presence is ownership
    Row{K::cpu_exclusive, E::overwrite, W::cpu_with, {}},                             // already granted
    Row{K::cpu_exclusive,
        E::overwrite,
        W::device_without,
        {revoke_others, adopt}},  // rule 4 without the copy
    Row{K::cpu_exclusive, E::overwrite, W::mount_without, {revoke_others, grant_write}},
    Row{K::cpu_exclusive, E::io_read, W::nobody, {io_home}},      // the kernel keeps read() and mmap coherent
    Row{K::cpu_exclusive, E::io_write, W::nobody, {io_home}},     // likewise
    Row{K::cpu_exclusive, E::bounce_read, W::nobody, {io_home}},  // nothing to bounce
    Row{K::cpu_exclusive, E::bounce_write, W::nobody, {io_home}},  // nothing to bounce
    Row{K::cpu_exclusive, E::writeback, W::nobody, {}},            // the kernel writes its own dirty pages
    Row{K::cpu_exclusive, E::evict, W::device_without, {}},        // the frame is gone already
    Row{K::cpu_exclusive, E::discard, W::nobody, {io_home}},       // no copy to drop

    // home: nobody holds a right.
    Row{K::home,
        E::read,
        W::cpu_without,
        {grant_write}},                                // no other holder: back to where every granule begins
    Row{K::home, E::read, W::device_without, {fill}},  // rule 3, the CPU has nothing to protect
    Row{K::home, E::read, W::mount_without, {grant_write}},  // presence is ownership
    Row{K::home, E::write, W::cpu_without, {grant_write}},   // rule 6, nothing to take away
    Row{K::home, E::write, W::device_without, {fill, grant_write}},
    Row{K::home, E::write, W::mount_without, {grant_write}},
    Row{K::home, E::overwrite, W::cpu_without, {grant_write}},  // home is the CPU's memory: nothing to skip
    Row{K::home, E::overwrite, W::device_without, {adopt}},
    Row{K::home, E::overwrite, W::mount_without, {grant_write}},
    Row{K::home, E::io_read, W::nobody, {io_home}},
    Row{K::home, E::io_write, W::nobody, {io_home}},
    Row{K::home, E::bounce_read, W::nobody, {io_home}},
    Row{K::home, E::bounce_write, W::nobody, {io_home}},
    Row{K::home, E::writeback, W::nobody, {}},
    Row{K::home, E::evict, W::device_without, {}},
    Row{K::home, E::discard, W::nobody, {io_home}},

    // shared: clean copies may be dropped at any time, home has the bytes.
    Row{K::shared, E::read, W::cpu_with, {}},
    Row{K::shared, E::read, W::cpu_without, {grant_read}},  // rule 5, the copy is home already
    Row{K::shared, E::read, W::device_with, {}},
    Row{K::shared, E::read, W::device_without, {fill}},
    Row{K::shared, E::read, W::mount_without, {revoke_others, grant_write}},
    Row{K::shared, E::write, W::cpu_with, {revoke_others, grant_write}},     // rule 6
    Row{K::shared, E::write, W::cpu_without, {revoke_others, grant_write}},  // rule 6
    Row{K::shared, E::write, W::device_with, {revoke_others, grant_write}},  // rule 4, its copy is current
    Row{K::shared, E::write, W::device_without, {revoke_others, fill, grant_write}},
    Row{K::shared, E::write, W::mount_without, {revoke_others, grant_write}},
    Row{K::shared, E::overwrite, W::cpu_with, {revoke_others, grant_write}},
    Row{K::shared, E::overwrite, W::cpu_without, {revoke_others, grant_write}},
    Row{K::shared,
        E::overwrite,
        W::device_with,
        {revoke_others, grant_write}},  // it has the bytes: nothing to skip
    Row{K::shared, E::overwrite, W::device_without, {revoke_others, adopt}},
    Row{K::shared, E::overwrite, W::mount_without, {revoke_others, grant_write}},
    Row{K::shared, E::io_read, W::nobody, {io_home}},
    Row{K::shared, E::io_write, W::nobody, {revoke_devices, io_home}},  // rules 6 and 9
    Row{K::shared, E::bounce_read, W::nobody, {io_home}},
    Row{K::shared,
        E::bounce_write,
        W::nobody,
        {revoke_devices, io_home}},  // several copies: home is the one to change
    Row{K::shared, E::writeback, W::nobody, {}},
    Row{K::shared, E::evict, W::device_with, {release}},
    Row{K::shared, E::evict, W::device_without, {}},
    Row{K::shared, E::discard, W::nobody, {revoke_devices, io_home}},

    // device_exclusive: nobody but the device knows the bytes.
    Row{K::device_exclusive, E::read, W::cpu_without, {protect, copy_home, grant_read}},  // rule 5
    Row{K::device_exclusive, E::read, W::device_with, {}},
    Row{K::device_exclusive, E::read, W::device_without, {protect, copy_home, fill}},
    Row{K::device_exclusive, E::read, W::mount_without, {protect, copy_home, revoke_others, grant_write}},
    Row{K::device_exclusive,
        E::write,
        W::cpu_without,
        {protect, copy_home, revoke_others, grant_write}},  // rule 6
    Row{K::device_exclusive, E::write, W::device_with, {}},
    Row{K::device_exclusive,
        E::write,
        W::device_without,
        {protect, copy_home, revoke_others, fill, grant_write}},
    Row{K::device_exclusive, E::write, W::mount_without, {protect, copy_home, revoke_others, grant_write}},
    Row{K::device_exclusive, E::overwrite, W::cpu_without, {protect, copy_home, revoke_others, grant_write}},
    Row{K::device_exclusive, E::overwrite, W::device_with, {}},
    // The old bytes go home although they will be overwritten: the new owner may fail to get a frame.
    Row{K::device_exclusive, E::overwrite, W::device_without, {protect, copy_home, revoke_others, adopt}},
    Row{K::device_exclusive,
        E::overwrite,
        W::mount_without,
        {protect, copy_home, revoke_others, grant_write}},
    Row{K::device_exclusive, E::io_read, W::nobody, {protect, copy_home, io_home}},  // rules 5 and 9
    Row{K::device_exclusive,
        E::io_write,
        W::nobody,
        {protect, copy_home, revoke_devices, io_home}},  // rules 6 and 9
    Row{K::device_exclusive,
        E::bounce_read,
        W::nobody,
        {protect, io_copy}},  // rule 7; protected, hence atomic
    Row{K::device_exclusive, E::bounce_write, W::nobody, {protect, io_copy}},  // rule 7
    Row{K::device_exclusive, E::writeback, W::nobody, {protect, copy_home}},   // rule 8
    Row{K::device_exclusive, E::evict, W::device_with, {protect, copy_home, release}},
    Row{K::device_exclusive, E::evict, W::device_without, {}},
    // The bytes are dropped only after the file system has done its part, which may fail (rule 10).
    Row{K::device_exclusive, E::discard, W::nobody, {protect, io_home, drop}},

    // device_owned: as device_exclusive, already protected.
    Row{K::device_owned, E::read, W::cpu_without, {copy_home, grant_read}},
    Row{K::device_owned, E::read, W::device_with, {}},
    Row{K::device_owned, E::read, W::device_without, {copy_home, fill}},
    Row{K::device_owned, E::read, W::mount_without, {copy_home, revoke_others, grant_write}},
    Row{K::device_owned, E::write, W::cpu_without, {copy_home, revoke_others, grant_write}},
    Row{K::device_owned, E::write, W::device_with, {grant_write}},  // still the owner: no copy
    Row{K::device_owned, E::write, W::device_without, {copy_home, revoke_others, fill, grant_write}},
    Row{K::device_owned, E::write, W::mount_without, {copy_home, revoke_others, grant_write}},
    Row{K::device_owned, E::overwrite, W::cpu_without, {copy_home, revoke_others, grant_write}},
    Row{K::device_owned, E::overwrite, W::device_with, {grant_write}},
    Row{K::device_owned, E::overwrite, W::device_without, {copy_home, revoke_others, adopt}},
    Row{K::device_owned, E::overwrite, W::mount_without, {copy_home, revoke_others, grant_write}},
    Row{K::device_owned, E::io_read, W::nobody, {copy_home, io_home}},
    Row{K::device_owned, E::io_write, W::nobody, {copy_home, revoke_devices, io_home}},
    Row{K::device_owned, E::bounce_read, W::nobody, {io_copy}},
    Row{K::device_owned, E::bounce_write, W::nobody, {io_copy}},
    Row{K::device_owned, E::writeback, W::nobody, {copy_home}},
    Row{K::device_owned, E::evict, W::device_with, {copy_home, release}},
    Row{K::device_owned, E::evict, W::device_without, {}},
    Row{K::device_owned, E::discard, W::nobody, {io_home, drop}},

    // mount_exclusive: "protect" recalls the granule, after which home is current and nobody holds a right.
    Row{K::mount_exclusive, E::read, W::cpu_without, {protect, grant_write}},
    Row{K::mount_exclusive, E::read, W::device_without, {protect, fill}},
    Row{K::mount_exclusive, E::read, W::mount_with, {}},
    Row{K::mount_exclusive, E::write, W::cpu_without, {protect, grant_write}},
    Row{K::mount_exclusive, E::write, W::device_without, {protect, fill, grant_write}},
    Row{K::mount_exclusive, E::write, W::mount_with, {}},
    Row{K::mount_exclusive, E::overwrite, W::cpu_without, {protect, grant_write}},
    Row{K::mount_exclusive, E::overwrite, W::device_without, {protect, adopt}},
    Row{K::mount_exclusive, E::overwrite, W::mount_with, {}},
    Row{K::mount_exclusive, E::io_read, W::nobody, {protect, io_home}},
    Row{K::mount_exclusive, E::io_write, W::nobody, {protect, io_home}},
    Row{K::mount_exclusive,
        E::bounce_read,
        W::nobody,
        {protect, io_home}},  // its bytes cannot be read in place
    Row{K::mount_exclusive, E::bounce_write, W::nobody, {protect, io_home}},
    Row{K::mount_exclusive, E::writeback, W::nobody, {protect}},  // the recall writes its dirty bytes home
    Row{K::mount_exclusive, E::evict, W::device_without, {}},
    Row{K::mount_exclusive, E::discard, W::nobody, {protect, io_home}},
};
// clang-format on

/// One state of each shape that the rows can tell apart: up to two devices besides the requester.
constexpr std::array<GranuleState, 13> sample_states() {
  constexpr AgentId d0 = AgentId::device(0);
  constexpr AgentId d1 = AgentId::device(1);
  constexpr AgentSet cpu = AgentSet::of(AgentId::cpu());
  return {GranuleState::cpu_exclusive(),
          GranuleState::at_home(),
          GranuleState::shared_by(cpu),
          GranuleState::shared_by(cpu.with(d0)),
          GranuleState::shared_by(cpu.with(d1)),
          GranuleState::shared_by(cpu.with(d0).with(d1)),
          GranuleState::shared_by(AgentSet::of(d0)),
          GranuleState::shared_by(AgentSet::of(d1)),
          GranuleState::shared_by(AgentSet::of(d0).with(d1)),
          GranuleState::device_exclusive(d0),
          GranuleState::device_owned(d0),
          GranuleState::device_exclusive(d1),
          GranuleState::mount_exclusive()};
}

constexpr int rows_for(Kind k, Event e, Who w) {
  int n = 0;
  for (const Row& r : kTable) n += r.kind == k && r.event == e && r.who == w;
  return n;
}

constexpr const Row* row_for(Kind k, Event e, Who w) {
  for (const Row& r : kTable)
    if (r.kind == k && r.event == e && r.who == w) return &r;
  return nullptr;
}

constexpr bool reaches_its_goal(const GranuleState& s, Event e, AgentId a) {
  switch (e) {
    case Event::read: return s.may_read(a);
    case Event::write:
    case Event::overwrite: return s.may_write(a);
    case Event::evict: return !s.may_read(a);
    case Event::io_read:
    case Event::io_write:
    case Event::writeback: return s.home_is_current();
    case Event::discard: return s.home_is_current() && !s.is_device_dirty();
    case Event::bounce_read:
    case Event::bounce_write: return true;
  }
  return false;
}

/// For every state, event and requester: exactly one row; its steps are allowed one after another; every
/// state on the way is legal; the last one is what the event is for.
constexpr bool case_holds(const GranuleState& s, Event e, AgentId a) {
  const Who w = who_is(s, e, a);
  if (rows_for(s.kind, e, w) != 1) return false;
  GranuleState now = s;
  for (const Step step : row_for(s.kind, e, w)->steps) {
    if (!allows(now, step, a)) return false;
    now = apply(now, step, a);
    if (!now.is_legal()) return false;
  }
  return reaches_its_goal(now, e, a);
}

constexpr bool table_is_complete() {
  for (const GranuleState& s : sample_states())
    for (unsigned e = 0; e < kEventCount; ++e) {
      const auto event = static_cast<Event>(e);
      for (const AgentId a : {AgentId::cpu(), AgentId::device(0), AgentId::device(1), AgentId::mount()})
        if (!(event == Event::evict && !a.is_device()) && !case_holds(s, event, a)) return false;
    }
  return true;
}
static_assert(table_is_complete());

/// Dense index of the rows, made when the library is compiled: a fault finds its row with one load.
constexpr auto kIndex = [] {
  std::array<std::uint8_t, kKindCount * kEventCount * kWhoCount> index{};
  for (auto& i : index) i = 0xff;
  for (std::size_t n = 0; n < kTable.size(); ++n) {
    const Row& r = kTable[n];
    const auto at =
        (static_cast<unsigned>(r.kind) * kEventCount + static_cast<unsigned>(r.event)) * kWhoCount +
        static_cast<unsigned>(r.who);
    index[at] = static_cast<std::uint8_t>(n);
  }
  return index;
}();

}  // namespace

const Row& find_row(Kind kind, Event event, Who who) noexcept {
  const auto at = (static_cast<unsigned>(kind) * kEventCount + static_cast<unsigned>(event)) * kWhoCount +
                  static_cast<unsigned>(who);
  const std::uint8_t n = kIndex[at];
  assert(n != 0xff && "no row for this case: the event does not fit the requester");
  return kTable[n];
}

std::span<const Row> rows() noexcept { return kTable; }

}  // namespace aprime::coherence
