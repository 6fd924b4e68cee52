#include <utility>

#include "host/coherence/names.hpp"
#include "tests/coherence/model.hpp"

namespace aprime::coherence::test {
namespace {

constexpr std::size_t case_index(Kind kind, Event event, Who who) noexcept {
  return (static_cast<std::size_t>(kind) * kEventCount + static_cast<std::size_t>(event)) * kWhoCount +
         static_cast<std::size_t>(who);
}

std::string_view name(Right r) noexcept { return r == Right::none ? "-" : r == Right::read ? "R" : "RW"; }
std::string_view name(Bytes b) noexcept {
  return b == Bytes::newest ? "newest" : b == Bytes::stale ? "stale" : "pending";
}

std::string party_of(const Label& l) { return l.anonymous ? "an I/O call" : std::string(name(l.party)); }

}  // namespace

std::string_view name(Party p) noexcept {
  switch (p) {
    case Party::cpu: return "cpu";
    case Party::device_0: return "device 0";
    case Party::device_1: return "device 1";
    case Party::mount: return "mount";
  }
  return "?";
}

Table::Table() : Table(std::vector<Row>(coherence::rows().begin(), coherence::rows().end())) {}

Table::Table(std::vector<Row> rows) : rows_(std::move(rows)) {
  assert(rows_.size() < Granule::kNoRow);
  index_.fill(kNone);
  for (std::size_t i = 0; i < rows_.size(); ++i)
    index_[case_index(rows_[i].kind, rows_[i].event, rows_[i].who)] = static_cast<std::uint8_t>(i);
}

const Row* Table::find(Kind kind, Event event, Who who) const noexcept {
  const std::uint8_t i = index_[case_index(kind, event, who)];
  return i == kNone ? nullptr : &rows_[i];
}

std::uint64_t Granule::key() const noexcept {
  assert(word.pins() == 0 && word.epoch() == 0 && !word.has_waiters());
  std::uint64_t key = word.bits();
  unsigned at = 26;
  const auto put = [&](auto value, unsigned bits) {
    key |= static_cast<std::uint64_t>(value) << at;
    at += bits;
  };
  for (const Right r : right) put(r, 2);
  put(cache, 2);
  put(read_upcall, 2);
  put(home, 2);
  for (const Bytes b : copy) put(b, 2);
  put(cached, 2);
  put(row, 7);
  put(position, 3);
  put(requester, 2);
  for (const bool flag : {half, torn, slipped, range, held}) put(flag, 1);
  assert(at <= 64);
  return key;
}

Right Granule::right_of(Party p) const noexcept {
  if (p == Party::mount) return cache == Cache::absent ? Right::none : Right::write;
  return right[static_cast<std::size_t>(p)];
}

Granule Granule::with_devices_swapped() const noexcept {
  const auto other = [](AgentId a) { return a.is_device() ? AgentId::device(1 - a.device_number()) : a; };
  Granule g = *this;
  GranuleState s = word.state();
  s.owner = other(s.owner);
  AgentSet readers;
  for (std::size_t p = 0; p < kPartyCount; ++p)
    if (const AgentId a = agent_of(static_cast<Party>(p)); s.readers.contains(a))
      readers = readers.with(other(a));
  s.readers = readers;
  g.word = word.with_state(s);
  std::swap(g.right[1], g.right[2]);
  std::swap(g.copy[0], g.copy[1]);
  if (is_device(requester)) g.requester = requester == Party::device_0 ? Party::device_1 : Party::device_0;
  return g;
}

std::string Granule::to_string() const {
  std::string text{coherence::name(word.state().kind)};
  if (word.busy()) text += held ? " held" : " busy";
  for (std::size_t p = 0; p < right.size(); ++p)
    text.append(", ").append(name(static_cast<Party>(p))).append(" ").append(name(right[p]));
  text.append("; home ").append(name(home));
  for (std::size_t d = 0; d < kDeviceCount; ++d)
    if (right[1 + d] != Right::none)
      text.append(", copy ").append(std::to_string(d)).append(" ").append(name(copy[d]));
  if (cache != Cache::absent)
    text.append(cache == Cache::dirty ? ", mount dirty " : ", mount clean ").append(name(cached));
  if (read_upcall != Upcall::none)
    text += read_upcall == Upcall::waiting ? ", READ waits" : ", READ answered";
  return text;
}

std::string Label::to_string() const {
  const std::string who = party_of(*this);
  const std::string what{coherence::name(event)};
  const std::string how{coherence::name(step)};
  switch (act) {
    case Act::start: return who + " starts " + what;
    case Act::nothing_to_do: return who + " asks for " + what + ": nothing to do";
    case Act::begin_step: return "  " + how + " begins (" + what + " by " + who + ")";
    case Act::finish_step: return "  " + how + " (" + what + " by " + who + ")";
    case Act::step_fails: return "  " + how + " fails (" + what + " by " + who + ")";
    case Act::no_frame: return "  " + how + " finds no frame (" + what + " by " + who + ")";
    case Act::release: return who + " has finished " + what;
    case Act::store: return who + " stores";
    case Act::read_upcall: return "the mount asks for the page (READ)";
    case Act::read_arrives: return "the answer to the READ arrives";
    case Act::read_answered_in_recall: return "the READ is answered during the recall";
    case Act::write_upcall: return "the mount delivers its dirty bytes (WRITE)";
    case Act::page_forgotten: return "the mount forgets its clean page";
    case Act::invalidated: return "  the mount's page is invalidated";
    case Act::invalidate_again: return "  a READ slipped in: invalidate again";
    case Act::lease_asked: return who + " asks for a lease";
    case Act::lease_pinned: return who + " pins for its lease";
    case Act::lease_released: return who + " ends its lease";
    case Act::range_released: return "all granules of the range are released";
  }
  return "?";
}

std::string_view Model::broken_invariant(const Granule& g) noexcept {
  const GranuleState s = g.word.state();
  if (!s.is_legal()) return "the directory's state is not legal";
  unsigned writers = 0;
  unsigned holders = 0;
  for (std::size_t i = 0; i < kPartyCount; ++i) {
    const auto p = static_cast<Party>(i);
    const Right r = g.right_of(p);
    writers += r == Right::write;
    holders += r != Right::none;
    if (r == Right::write && !s.may_write(agent_of(p))) return "an agent can store, unknown to the directory";
    if (r != Right::none && !s.may_read(agent_of(p))) return "an agent can load, unknown to the directory";
    if (!g.word.busy() && p != Party::mount &&
        (s.may_write(agent_of(p)) != (r == Right::write) || s.may_read(agent_of(p)) != (r != Right::none)))
      return "the directory grants what the hardware refuses: the agent would fault for ever";
  }
  if (writers > 1 || (writers == 1 && holders > 1)) return "one can store while another can load or store";

  if (g.right_of(Party::cpu) != Right::none && g.home != Bytes::newest) return "stale read by the CPU";
  for (std::size_t d = 0; d < kDeviceCount; ++d)
    if (g.right[1 + d] != Right::none && g.copy[d] != Bytes::newest) return "stale read by a device";
  if (g.cache != Cache::absent && g.cached != Bytes::newest) return "stale read through the mount";

  // Every dirty byte is reachable: the newest bytes are where the directory says.
  if (s.home_is_current() && g.home != Bytes::newest) return "lost store: home should be current";
  if (s.is_device_dirty() && g.copy[s.owner.device_number()] != Bytes::newest)
    return "lost store: the owner's copy should be current";
  if (s.kind == Kind::mount_exclusive && (g.cache == Cache::dirty ? g.cached : g.home) != Bytes::newest)
    return "lost store: neither the mount nor home is current";
  return {};
}

}  // namespace aprime::coherence::test
