#pragma once

#include <cstddef>

#include "aprime/access.hpp"
#include "aprime/units.hpp"
#include "host/os/file.hpp"
#include "host/os/protected_range.hpp"
#include "host/os/trap.hpp"

namespace aprime::engine {

class CoherentFile;
class HostView;

/// Serves the CPU's traps on a host view. Implemented by CoherentFile. Called inside a signal handler.
class HostFaultHandler {
 public:
  /// Valid answers: ok (the right was given, the access is tried again); anything else ends the access with
  /// SIGBUS.
  virtual Status on_host_fault(HostView& view, GranuleIndex granule, bool write) noexcept = 0;
  /// Whether a byte at this offset lies in a page of the file; beyond, the kernel raises SIGBUS and so do we.
  virtual bool is_backed(ByteOffset at) noexcept = 0;

 protected:
  ~HostFaultHandler() = default;
};

/// The CPU's pointer to a range of a file: a shared mapping of the file itself (A *is* the page-cache page),
/// whose rights are taken and given per granule. Granules are numbered as in the file. Thread-safe as
/// ProtectedRange is.
class HostView final : public os::TrapTarget {
 public:
  /// Maps `range` (beginning at a granule) and rounds it up to whole granules, with all rights that `access`
  /// allows everywhere. \throws Error(cannot_open | resources)
  HostView(os::File& file, ByteRange range, GranuleSize granule, Access access, HostFaultHandler& handler);

  std::byte* data() const noexcept { return memory_.data(); }
  Access access() const noexcept { return access_; }
  GranuleRange granules() const noexcept { return granules_; }
  bool contains(const void* p) const noexcept;

  /// Sets the CPU's right to those granules of `run` that the view covers. Valid answers: ok; resources (only
  /// when granting).
  Status set(GranuleRange run, os::Protection p) noexcept;

  /// Granules of the view whose rights are not taken for the sake of others', because a system call works on
  /// them. Each is let go by the same object, which stays where it is.
  using Held = os::ProtectedRange::Held;
  Held to_hold(GranuleRange granules) const noexcept {
    return {{GranuleIndex{granules.first.value - granules_.first.value}, granules.count}};
  }
  void hold(Held& held) noexcept { memory_.hold(held); }
  void let_go(Held& held) noexcept { memory_.let_go(held); }

  std::uint64_t over_protections() const noexcept { return memory_.over_protections(); }

  Answer on_trap(const os::Trap& trap) noexcept override;

 private:
  const GranuleSize granule_;
  const GranuleRange granules_;
  const Access access_;
  HostFaultHandler& handler_;
  os::ProtectedRange memory_;
  os::TrapRegistration registration_;
};

}  // namespace aprime::engine
