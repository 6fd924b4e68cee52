#pragma once

#include <array>
#include <cassert>
#include <cstdint>
#include <initializer_list>

#include "host/coherence/granule_state.hpp"

namespace aprime::coherence {

/// One thing that is done to a granule while its transaction holds it. A step that fails leaves the state as
/// it was before the step, and every such state is legal, so a failure at any point loses nothing.
enum class Step : std::uint8_t {
  /// Take the write right from whoever has it. The CPU and a device keep reading; a mount gives up everything
  /// and delivers its dirty bytes home, because its page cache cannot be told to stop storing only.
  protect,
  /// Copy the owner's bytes to home.
  copy_home,
  /// Take every right and copy from all agents but the requester.
  revoke_others,
  /// Take every right and copy from all devices; the CPU keeps what it has, for home is its memory.
  revoke_devices,
  /// Throw away the owner's bytes, because what was just done to home replaces them.
  drop,
  /// Give the requesting device a copy of home that it may read.
  fill,
  /// Give the requesting device a zeroed frame that it may write; home becomes stale.
  adopt,
  /// Let the requester (the CPU) read home.
  grant_read,
  /// Let the requester store; if it is a device, home becomes stale.
  grant_write,
  /// Give back the requesting device's frame.
  release,
  /// The caller's own I/O on home: pread, pwrite, direct I/O, fallocate.
  io_home,
  /// The caller's own I/O on the owner's copy, through a bounce buffer.
  io_copy,
};

/// A short fixed list of steps, so that a plan needs no allocation.
class StepList {
 public:
  static constexpr std::size_t kMax = 5;

  constexpr StepList() = default;
  constexpr StepList(std::initializer_list<Step> steps) noexcept {
    assert(steps.size() <= kMax);
    for (const Step s : steps) steps_[size_++] = s;
  }
  constexpr const Step* begin() const noexcept { return steps_.data(); }
  constexpr const Step* end() const noexcept { return steps_.data() + size_; }
  constexpr bool empty() const noexcept { return size_ == 0; }
  constexpr std::size_t size() const noexcept { return size_; }
  /// \pre size() < kMax
  constexpr void push_back(Step step) noexcept {
    assert(size_ < kMax);
    steps_[size_++] = step;
  }
  constexpr bool contains(Step wanted) const noexcept {
    for (const Step s : *this)
      if (s == wanted) return true;
    return false;
  }

 private:
  std::array<Step, kMax> steps_{};
  std::uint8_t size_ = 0;
};

/// Whether `step`, asked for by `requester`, may be taken in state `s`. A step that would lose the only
/// newest bytes, or give a right that contradicts another agent's, is not allowed.
constexpr bool allows(const GranuleState& s, Step step, AgentId requester) noexcept {
  const AgentSet others = s.holders().without(requester);
  switch (step) {
    case Step::protect:
      return s.kind == Kind::cpu_exclusive || s.kind == Kind::device_exclusive ||
             s.kind == Kind::mount_exclusive;
    case Step::copy_home: return s.kind == Kind::device_owned;
    case Step::revoke_others:
      return s.kind == Kind::cpu_exclusive || s.kind == Kind::home || s.kind == Kind::shared;
    case Step::revoke_devices: return s.home_is_current();
    case Step::drop: return s.kind == Kind::device_owned;
    case Step::fill:
      return requester.is_device() && !s.may_read(requester) &&
             (s.kind == Kind::home || s.kind == Kind::shared);
    case Step::adopt: return requester.is_device() && s.kind == Kind::home;
    case Step::grant_read: return requester.is_cpu() && (s.kind == Kind::home || s.kind == Kind::shared);
    case Step::grant_write:
      if (!others.empty()) return false;
      if (requester.is_device()) return s.may_read(requester) && !s.may_write(requester);
      return s.kind == Kind::home || (requester.is_cpu() && s.kind == Kind::shared);
    case Step::release:
      return s.kind == Kind::shared && requester.is_device() && s.readers.contains(requester);
    case Step::io_home: return s.home_is_current() || s.kind == Kind::device_owned;
    case Step::io_copy: return s.kind == Kind::device_owned;
  }
  return false;
}

/// The state after `step`: the only place where one granule state becomes another.
/// \pre allows(s, step, requester)
constexpr GranuleState apply(const GranuleState& s, Step step, AgentId requester) noexcept {
  assert(allows(s, step, requester));
  switch (step) {
    case Step::protect:
      if (s.kind == Kind::cpu_exclusive) return GranuleState::shared_by(AgentSet::of(AgentId::cpu()));
      if (s.kind == Kind::device_exclusive) return GranuleState::device_owned(s.owner);
      return GranuleState::at_home();
    case Step::copy_home: return GranuleState::shared_by(AgentSet::of(s.owner));
    case Step::revoke_others:
      if (s.kind == Kind::cpu_exclusive) return requester.is_cpu() ? s : GranuleState::at_home();
      return GranuleState::shared_by(s.readers & AgentSet::of(requester));
    case Step::revoke_devices:
      if (s.kind != Kind::shared) return s;
      return GranuleState::shared_by(s.readers & AgentSet::of(AgentId::cpu()));
    case Step::drop: return GranuleState::at_home();
    case Step::fill: return GranuleState::shared_by(s.readers.with(requester));
    case Step::adopt: return GranuleState::device_exclusive(requester);
    case Step::grant_read: return GranuleState::shared_by(s.readers.with(requester));
    case Step::grant_write:
      if (requester.is_cpu()) return GranuleState::cpu_exclusive();
      return requester.is_mount() ? GranuleState::mount_exclusive()
                                  : GranuleState::device_exclusive(requester);
    case Step::release: return GranuleState::shared_by(s.readers.without(requester));
    case Step::io_home:
    case Step::io_copy: return s;
  }
  return s;
}

}  // namespace aprime::coherence
