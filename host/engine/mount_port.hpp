#pragma once

#include <memory>
#include <shared_mutex>

#include "aprime/error.hpp"
#include "aprime/units.hpp"
#include "host/os/file.hpp"

namespace aprime::engine {

class CoherentFile;

/// What a runtime asks of the mount that shows its files to other processes. Implemented by the mount.
class MountPort {
 public:
  /// Takes the pages of a range of a file out of every program's mappings and out of the mount's page cache.
  /// When it returns, what was stored to them is home, and the next access is a request for the page again.
  /// Called by threads that access the file; with no lock that serving such a request needs.
  virtual void recall(const os::FileIdentity& file, ByteRange range) noexcept = 0;

  /// The runtime begins to give this file to devices: its requests are served by it from now on, and no page
  /// of it is cached that was not asked for that way. \throws std::bad_alloc, Error(cannot_open) where the
  /// kernel is too old
  virtual void attach(const std::shared_ptr<CoherentFile>& file) = 0;
  /// The runtime wants to forget the file: copies everything home while none of its requests is in work. If
  /// that succeeds its requests are served from the source again.
  virtual Status detach(CoherentFile& file) noexcept = 0;

  /// Whether this device number is the mount's own file system, whose files are those of the source.
  virtual bool is_own(std::uint64_t device) const noexcept = 0;

 protected:
  ~MountPort() = default;
};

/// The runtime's mount, if there is one now. It can go at any time: calls in work are waited for.
/// Thread-safe.
class MountSlot {
 public:
  /// Null takes it away. \pre no call in work waits for the caller
  void set(MountPort* port) noexcept {
    const std::unique_lock lock(gate_);
    port_ = port;
  }
  bool is_taken() const noexcept {
    const std::shared_lock lock(gate_);
    return port_ != nullptr;
  }
  /// Calls `fn(MountPort&)` if there is a mount; otherwise the answer is `otherwise`.
  template <class Result, class Fn>
  Result with(Result otherwise, Fn&& fn) {
    const std::shared_lock lock(gate_);
    return port_ != nullptr ? fn(*port_) : otherwise;
  }

 private:
  /// Taken on fault paths, shared; exclusive only while a mount begins or ends. The C library lets readers in
  /// while a writer waits, which those who serve a recall rely on.
  mutable std::shared_mutex gate_;
  MountPort* port_ = nullptr;
};

}  // namespace aprime::engine
