#pragma once

#include <cassert>
#include <cstdint>

namespace aprime::coherence {

/// Who may hold a right on a granule: the CPU view of this process, a device, or a mount (the page caches of
/// other processes). `read()`, `write()`, direct I/O, writeback and truncate are not agents.
class AgentId {
 public:
  static constexpr unsigned kDevicesMax = 14;

  static constexpr AgentId cpu() noexcept { return AgentId{0}; }
  /// \pre number < kDevicesMax
  static constexpr AgentId device(unsigned number) noexcept {
    assert(number < kDevicesMax);
    return AgentId{static_cast<std::uint8_t>(number + 1)};
  }
  static constexpr AgentId mount() noexcept { return AgentId{15}; }
  static constexpr AgentId from_index(unsigned i) noexcept {
    return AgentId{static_cast<std::uint8_t>(i & 15)};
  }

  constexpr bool is_cpu() const noexcept { return index_ == 0; }
  constexpr bool is_mount() const noexcept { return index_ == 15; }
  constexpr bool is_device() const noexcept { return !is_cpu() && !is_mount(); }
  /// Number of a device. \pre is_device()
  constexpr unsigned device_number() const noexcept { return index_ - 1u; }
  constexpr unsigned index() const noexcept { return index_; }
  constexpr bool operator==(const AgentId&) const = default;

 private:
  constexpr explicit AgentId(std::uint8_t index) noexcept : index_(index) {}
  std::uint8_t index_;
};

/// A set of agents.
struct AgentSet {
  std::uint16_t bits = 0;

  static constexpr AgentSet of(AgentId a) noexcept { return {static_cast<std::uint16_t>(1u << a.index())}; }
  constexpr bool contains(AgentId a) const noexcept { return (bits >> a.index() & 1u) != 0; }
  constexpr bool empty() const noexcept { return bits == 0; }
  constexpr AgentSet with(AgentId a) const noexcept {
    return {static_cast<std::uint16_t>(bits | of(a).bits)};
  }
  constexpr AgentSet without(AgentId a) const noexcept {
    return {static_cast<std::uint16_t>(bits & ~of(a).bits)};
  }
  constexpr AgentSet operator&(AgentSet o) const noexcept {
    return {static_cast<std::uint16_t>(bits & o.bits)};
  }
  constexpr AgentSet minus(AgentSet o) const noexcept { return {static_cast<std::uint16_t>(bits & ~o.bits)}; }
  constexpr bool operator==(const AgentSet&) const = default;
};

/// Every legal combination of rights and residency of one granule. "Home" is A, the page-cache page.
enum class Kind : std::uint8_t {
  /// The CPU view may load and store; home is its memory, so home is current. Every granule begins here,
  /// which is why it is zero: a granule that was never given to anyone else costs nothing.
  cpu_exclusive = 0,
  /// Nobody holds a right; home is current.
  home,
  /// Home is current; the readers may load; each device among them has a clean copy; nobody may store.
  shared,
  /// One device may load and store; its copy holds the newest bytes; home is stale.
  device_exclusive,
  /// One device may load; its copy holds the newest bytes; home is stale; nobody may store. This is where a
  /// granule rests while it is copied home, after a failed writeback, and after a bounce.
  device_owned,
  /// Another process may have the granule in its page cache through the mount, and may store to it
  /// unannounced; home may be stale until the mount is recalled.
  mount_exclusive,
};
inline constexpr unsigned kKindCount = 6;

/// The state of one granule. Only `coherence::apply` makes a new one out of an old one.
///
/// Invariants (checked by `is_legal`):
/// - `owner` is the CPU in cpu_exclusive, home and shared; a device in device_*; the mount in mount_exclusive
/// - `readers` is empty except in shared, where it is not empty and has no mount in it
struct GranuleState {
  Kind kind = Kind::cpu_exclusive;
  AgentId owner = AgentId::cpu();
  AgentSet readers{};

  constexpr bool operator==(const GranuleState&) const = default;

  constexpr bool is_legal() const noexcept {
    const bool set_ok =
        kind == Kind::shared ? !readers.empty() && !readers.contains(AgentId::mount()) : readers.empty();
    switch (kind) {
      case Kind::device_exclusive:
      case Kind::device_owned: return owner.is_device() && set_ok;
      case Kind::mount_exclusive: return owner.is_mount() && set_ok;
      default: return owner.is_cpu() && set_ok;
    }
  }
  /// The bytes of home are the newest ones.
  constexpr bool home_is_current() const noexcept {
    return kind == Kind::cpu_exclusive || kind == Kind::home || kind == Kind::shared;
  }
  /// The newest bytes are on a device and nowhere else.
  constexpr bool is_device_dirty() const noexcept {
    return kind == Kind::device_exclusive || kind == Kind::device_owned;
  }
  constexpr bool may_read(AgentId a) const noexcept {
    switch (kind) {
      case Kind::home: return false;
      case Kind::shared: return readers.contains(a);
      default: return owner == a;
    }
  }
  constexpr bool may_write(AgentId a) const noexcept {
    return owner == a &&
           (kind == Kind::cpu_exclusive || kind == Kind::device_exclusive || kind == Kind::mount_exclusive);
  }
  /// Every agent that holds any right.
  constexpr AgentSet holders() const noexcept {
    if (kind == Kind::home) return {};
    return kind == Kind::shared ? readers : AgentSet::of(owner);
  }

  static constexpr GranuleState at_home() noexcept { return {Kind::home, AgentId::cpu(), {}}; }
  static constexpr GranuleState cpu_exclusive() noexcept { return {}; }
  /// `home` when `readers` is empty.
  static constexpr GranuleState shared_by(AgentSet readers) noexcept {
    return readers.empty() ? at_home() : GranuleState{Kind::shared, AgentId::cpu(), readers};
  }
  static constexpr GranuleState device_exclusive(AgentId d) noexcept {
    return {Kind::device_exclusive, d, {}};
  }
  static constexpr GranuleState device_owned(AgentId d) noexcept { return {Kind::device_owned, d, {}}; }
  static constexpr GranuleState mount_exclusive() noexcept {
    return {Kind::mount_exclusive, AgentId::mount(), {}};
  }
};

}  // namespace aprime::coherence
