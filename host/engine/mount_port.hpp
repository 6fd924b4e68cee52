#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "aprime/error.hpp"
#include "aprime/units.hpp"
#include "host/os/file.hpp"

namespace aprime::engine {

class CoherentFile;

inline constexpr ByteRange kWholeFile{ByteOffset{0}, ByteCount{std::uint64_t{1} << 62}};

/// What a runtime asks of the mount that shows its files to other processes. Implemented by the mount.
class MountPort {
 public:
  /// Takes the pages of a range of a file out of every program's mappings and out of the mount's page cache.
  /// When it returns, what was stored to them is home, and the next access is a request for the page again.
  /// Called by threads that access the file; with no lock that serving such a request needs.
  virtual void recall(const os::FileIdentity& file, ByteRange range) noexcept = 0;

  /// Programs ask for the size of a file, and for all else that stat tells, anew: its own program has changed
  /// it. Takes no page.
  virtual void forget_attributes(const os::FileIdentity& file) noexcept = 0;

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

/// The runtime's mount, if there is one now. It can go at any time: calls in work are waited for. Such a call
/// may wait for others, so none of them ever waits for who takes the mount away. Thread-safe, and usable
/// inside a signal handler.
class MountSlot {
 public:
  /// Null takes it away. \pre no call in work waits for the caller
  void set(MountPort* port) noexcept {
    port_.store(port);
    if (port != nullptr) return;
    for (auto calls = calls_.load(); calls != 0; calls = calls_.load()) calls_.wait(calls);
  }
  bool is_taken() const noexcept { return port_.load() != nullptr; }
  /// Calls `fn(MountPort&)` if there is a mount; otherwise the answer is `otherwise`.
  template <class Result, class Fn>
  Result with(Result otherwise, Fn&& fn) {
    const Call call(*this);
    MountPort* const port = port_.load();
    return port != nullptr ? fn(*port) : otherwise;
  }

 private:
  class Call {
   public:
    // Sequentially consistent with `set`: either that waits for us, or we see null.
    explicit Call(MountSlot& slot) noexcept : slot_(slot) { slot_.calls_.fetch_add(1); }
    ~Call() {
      if (slot_.calls_.fetch_sub(1) == 1 && slot_.port_.load() == nullptr) slot_.calls_.notify_all();
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    MountSlot& slot_;
  };

  std::atomic<MountPort*> port_{nullptr};
  std::atomic<unsigned> calls_{0};
};

}  // namespace aprime::engine
