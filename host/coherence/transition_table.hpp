#pragma once

#include <cstdint>
#include <span>

#include "host/coherence/steps.hpp"

namespace aprime::coherence {

/// What may happen to a granule. The first three are asked for by an agent, `evict` by the device that wants
/// its frame back; the others belong to nobody.
enum class Event : std::uint8_t {
  read,          ///< an agent wants to load
  write,         ///< an agent wants to store (an atomic is a store)
  overwrite,     ///< an agent will store every byte before it loads any
  io_read,       ///< the file is read through home: migrating `read()`, page-in, direct read
  io_write,      ///< the file is written through home: migrating `write()`, direct write, truncate of a part
  bounce_read,   ///< `read()` that leaves ownership where it is
  bounce_write,  ///< `write()` that leaves ownership where it is
  writeback,     ///< home must have the newest bytes, and no store may slip by unseen
  evict,         ///< a device gives its frame back
  discard,       ///< the whole granule goes: truncate, punch hole, or replaced by one whole `write()`
};
inline constexpr unsigned kEventCount = 10;

/// The requester's standing: what kind of agent it is, and whether it holds a right on the granule now.
enum class Who : std::uint8_t {
  nobody,
  cpu_without,
  cpu_with,
  device_without,
  device_with,
  mount_without,
  mount_with,
};
inline constexpr unsigned kWhoCount = 7;

constexpr bool is_agent_event(Event e) noexcept {
  return e == Event::read || e == Event::write || e == Event::overwrite || e == Event::evict;
}

constexpr Who who_is(const GranuleState& s, Event e, AgentId requester) noexcept {
  if (!is_agent_event(e)) return Who::nobody;
  const bool with = s.may_read(requester);
  if (requester.is_cpu()) return with ? Who::cpu_with : Who::cpu_without;
  if (requester.is_mount()) return with ? Who::mount_with : Who::mount_without;
  return with ? Who::device_with : Who::device_without;
}

/// One labelled case: in state `kind`, when `event` comes from `who`, take `steps` in order.
struct Row {
  Kind kind;
  Event event;
  Who who;
  StepList steps;
};

/// The row for a case. Exactly one row exists for each case that can occur: `table_is_complete` proves it
/// when this library is compiled.
const Row& find_row(Kind kind, Event event, Who who) noexcept;

/// Every row, in the order of the table.
std::span<const Row> rows() noexcept;

/// What to do when `event` comes from `requester` in state `s`.
inline const StepList& plan(const GranuleState& s, Event event, AgentId requester) noexcept {
  return find_row(s.kind, event, who_is(s, event, requester)).steps;
}

/// The leases that a transaction has to wait for before it begins.
enum class PinsInTheWay : std::uint8_t { none, of_devices, of_all };

/// Taking `steps` from `s` is in the way of those agents from whom it takes a right away, or under whom bytes
/// change that they may be reading through a raw pointer. If the CPU is none of them its leases stay: they
/// may be the requester's own.
constexpr PinsInTheWay pins_in_the_way(const GranuleState& s, const StepList& steps, Event event,
                                       AgentId requester) noexcept {
  PinsInTheWay pins = event == Event::bounce_write && steps.contains(Step::io_copy) ? PinsInTheWay::of_devices
                                                                                    : PinsInTheWay::none;
  GranuleState now = s;
  for (const Step step : steps) {
    const GranuleState next = apply(now, step, requester);
    for (unsigned i = 0; i < 16; ++i) {
      const AgentId a = AgentId::from_index(i);
      const bool loses = (now.may_read(a) && !next.may_read(a)) || (now.may_write(a) && !next.may_write(a));
      if (loses && !a.is_device()) return PinsInTheWay::of_all;
      if (loses) pins = PinsInTheWay::of_devices;
    }
    now = next;
  }
  return pins;
}

}  // namespace aprime::coherence
