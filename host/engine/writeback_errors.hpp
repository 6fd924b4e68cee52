#pragma once

#include <cstdint>
#include <utility>

#include "aprime/error.hpp"
#include "aprime/units.hpp"
#include "host/sync/mutex.hpp"

namespace aprime::engine {

/// A file's failed writebacks, so that none is ever dropped: each holder of the file hears of an error once,
/// at its next sync (the kernel's errseq_t, lib/errseq.c, does this for page-cache pages).
/// Thread-safe.
class WritebackErrors {
 public:
  /// A place in the sequence of errors, up to which a holder has heard.
  using Seen = std::uint64_t;

  void record(const Status& status) noexcept {
    const sync::Lock lock(mutex_);
    last_ = status;
    ++count_;
  }
  Seen now() noexcept {
    const sync::Lock lock(mutex_);
    return count_;
  }
  /// How many there were, and the newest.
  std::pair<Seen, Status> last() noexcept {
    const sync::Lock lock(mutex_);
    return {count_, last_};
  }
  /// The newest error that this holder has not heard of, ok if there is none.
  Status take(Seen& seen) noexcept {
    const sync::Lock lock(mutex_);
    if (std::exchange(seen, count_) == count_) return {};
    return last_;
  }

 private:
  sync::Mutex mutex_{sync::LockRank::errors};
  Status last_ APRIME_GUARDED_BY(mutex_);
  Seen count_ APRIME_GUARDED_BY(mutex_) = 0;
};

}  // namespace aprime::engine
