#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "host/coherence/granule_word.hpp"
#include "host/coherence/transition_table.hpp"

/// A model of the coherence protocol for one granule, built on the real table, `allows`, `apply` and
/// `pins_in_the_way`.
///
/// It keeps apart what the engine keeps apart: the directory's word, the rights that the hardware really
/// gives, and the bytes. Bytes have no values, only an age: the newest, or stale. That loses nothing, because
/// all that is ever asked of a copy is whether it equals the newest.
///
/// What can happen at any moment, also between the steps of a transaction:
/// - whoever has a hardware right to store, stores; whoever has one to load may load, so a stale copy that
///   can be loaded is an error in itself
/// - another process touches the mount: READ upcall, WRITE upcall, a clean page forgotten
/// - a step fails: without effect, or halfway (a copy of which half is written, a short write). Only
///   `release` and `drop` cannot fail, for they only forget
///
/// Taking a right away from several agents is one action, although an engine does it one by one: in between,
/// fewer can load or store than before, and the bytes are the same. So nothing new can go wrong; but it must
/// not fail halfway.
///
/// The answer to a WRITE upcall is always success: the engine has to keep bytes it cannot write home. How
/// threads sleep and are woken is not modelled: who waits, tries again whenever it likes.
///
/// CPU and device threads have no identity here: any thread of an agent may fault at any time, also on a
/// granule whose right has just been granted to another thread of that agent. So every number of threads is
/// covered, two included.
namespace aprime::coherence::test {

enum class Party : std::uint8_t { cpu, device_0, device_1, mount };
inline constexpr std::size_t kPartyCount = 4;
inline constexpr std::size_t kDeviceCount = 2;

constexpr AgentId agent_of(Party p) noexcept {
  switch (p) {
    case Party::cpu: return AgentId::cpu();
    case Party::device_0: return AgentId::device(0);
    case Party::device_1: return AgentId::device(1);
    case Party::mount: return AgentId::mount();
  }
  return AgentId::cpu();
}
constexpr bool is_device(Party p) noexcept { return p == Party::device_0 || p == Party::device_1; }
constexpr Party device_party(std::size_t number) noexcept {
  return number == 0 ? Party::device_0 : Party::device_1;
}
std::string_view name(Party) noexcept;

/// A right as the hardware gives it: page protection of the CPU view, mapping of a device.
enum class Right : std::uint8_t { none, read, write };

/// `pending`: what a discard has put home while the old bytes still are the newest: it takes effect when they
/// are dropped.
enum class Bytes : std::uint8_t { newest, stale, pending };

/// The page in the page cache behind the mount; present in any way, it may be stored to unannounced.
enum class Cache : std::uint8_t { absent, clean, dirty };

/// READ upcall of the mount; its page is locked until the answer arrives.
enum class Upcall : std::uint8_t { none, waiting, answered };

/// Defects that can be put into the engine that carries out the steps, to see the checker find them.
enum class Defect : std::uint8_t {
  none,
  pins_ignored,                ///< a transaction takes away rights that a lease relies on
  host_pins_ignored,           ///< the same, of the CPU's leases
  bounce_write_ignores_pins,   ///< bytes change under a reading lease
  protect_leaves_cpu_storing,  ///< mprotect forgotten
  protect_leaves_device_storing,
  revoke_forgets_cpu,
  revoke_forgets_devices,
  fill_maps_writable,        ///< breaks rule 3
  grant_forgets_mapping,     ///< the directory says yes, the hardware no
  error_of_copy_ignored,     ///< copy_home failed, and the transaction goes on
  recall_loses_dirty_bytes,  ///< the page is dropped before its WRITE upcall
  recall_answers_no_read,    ///< a READ waits for the transaction that waits for the READ's page
  recall_not_repeated,       ///< a READ slipped in, and the page stays
  eviction_waits,            ///< for a busy granule, instead of giving up: two devices wait for each other
};

/// The table under test: the real one, or one with a changed row.
class Table {
 public:
  Table();
  explicit Table(std::vector<Row> rows);

  /// Null when there is no row for the case.
  const Row* find(Kind, Event, Who) const noexcept;
  const Row& row(std::size_t i) const noexcept { return rows_[i]; }
  std::size_t size() const noexcept { return rows_.size(); }
  std::size_t index_of(const Row* r) const noexcept { return static_cast<std::size_t>(r - rows_.data()); }

 private:
  static constexpr std::uint8_t kNone = 0xff;
  std::vector<Row> rows_;
  std::array<std::uint8_t, std::size_t{kKindCount} * kEventCount * kWhoCount> index_{};
};

/// Everything about one granule. The word's epoch and wait bit are left out (they never decide what is
/// allowed), and its pins are kept by the checker, which knows the leases.
struct Granule {
  static constexpr std::uint8_t kNoRow = 0x7f;

  GranuleWord word{};
  /// By Party, without the mount.
  std::array<Right, 1 + kDeviceCount> right{Right::write, Right::none, Right::none};
  Cache cache = Cache::absent;
  Upcall read_upcall = Upcall::none;
  Bytes home = Bytes::newest;
  std::array<Bytes, kDeviceCount> copy{Bytes::stale, Bytes::stale};
  Bytes cached = Bytes::stale;  // the mount's page, or the answer on its way to it

  std::uint8_t row = kNoRow;  // the transaction in progress, and how far it is
  std::uint8_t position = 0;
  Party requester = Party::cpu;
  bool half = false;     // a copy has begun; or the recall's invalidation has returned
  bool torn = false;     // what is being copied was not, or is no longer, the newest
  bool slipped = false;  // a READ was answered during the recall
  bool range = false;    // one of several granules of one transaction
  bool held = false;     // done, kept busy until the other granules are done

  std::uint64_t key() const noexcept;
  Right right_of(Party) const noexcept;
  bool is_quiet() const noexcept { return !word.busy() && read_upcall == Upcall::none; }
  /// The two devices exchanged.
  Granule with_devices_swapped() const noexcept;
  std::string to_string() const;
};

enum class Act : std::uint8_t {
  start,
  nothing_to_do,
  begin_step,
  finish_step,
  step_fails,
  no_frame,
  release,
  store,
  read_upcall,
  read_arrives,
  read_answered_in_recall,
  write_upcall,
  page_forgotten,
  invalidated,
  invalidate_again,
  lease_asked,
  lease_pinned,
  lease_released,
  range_released,
};

struct Label {
  Act act{};
  Party party = Party::cpu;
  Event event{};
  Step step{};
  bool anonymous = false;

  std::string to_string() const;
};

/// `request` and `environment` may or may not happen; `completion` is what somebody has to do once it is
/// possible.
enum class Will : std::uint8_t { request, completion, failure, environment };

/// One thing that can happen to a granule.
struct Edge {
  Granule next;
  Label label;
  Will will = Will::environment;
  PinsInTheWay waits_for = PinsInTheWay::none;  // may start only while no such lease pins the granule
  bool changes_copy = false;                    // I/O changes a device's copy in place
  bool range = false;                           // starts a part of a transaction over several granules
  bool needs_frame = false;                     // only while the device `label.party` has a free frame
  bool only_without_frame = false;              // the opposite
  std::uint8_t row = Granule::kNoRow;           // of the transaction that this edge ends with success
  std::string_view violation{};                 // not empty: taking the edge breaks a promise
};

struct Model {
  Table table{};
  Defect defect = Defect::none;
  bool mount = true;
  bool ranges = false;

  /// Everything that can happen next.
  std::vector<Edge> edges(const Granule&) const;
  /// The invariant that `g` breaks; empty when it keeps all of them.
  static std::string_view broken_invariant(const Granule& g) noexcept;
  /// Whether device `number` holds a frame for the granule, or is being given one.
  bool uses_frame(const Granule& g, std::size_t number) const noexcept;
  /// Whether a transaction could go on if device `number` had a free frame.
  bool wants_frame(const Granule& g, std::size_t number) const noexcept;

 private:
  using Edges = std::vector<Edge>;
  void add_stores(const Granule&, Edges&) const;
  void add_mount(const Granule&, Edges&) const;
  void add_starts(const Granule&, Edges&) const;
  void add_start(const Granule&, Event, Party, bool range, Edges&) const;
  void add_progress(const Granule&, Edges&) const;
  void add_recall(const Granule&, Edges&) const;
  void add_failures(const Granule&, Edges&) const;
  Edge finished(const Granule&) const;
  Edge released(const Granule&) const;
  Granule ended(const Granule&, bool success) const;
  Step step_of(const Granule&) const noexcept;
  Event event_of(const Granule& g) const noexcept { return table.row(g.row).event; }
};

}  // namespace aprime::coherence::test
