#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "aprime/error.hpp"
#include "aprime/units.hpp"
#include "host/sync/mutex.hpp"

namespace aprime::engine {

/// A file's failed writebacks, so that none is ever dropped: each holder of the file hears of an error once,
/// at its next sync (the kernel's errseq_t, lib/errseq.c, does this for page-cache pages). A file may be
/// known for a while, forgotten, and known again, to holders who have it open all the time: no two of these
/// share a place in the sequence. Thread-safe.
class WritebackErrors {
 public:
  /// A place in the sequence of errors, up to which a holder has heard; 0 if of none.
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
    return {count_ - first_, last_};
  }
  /// The newest error that this holder has not heard of, ok if there is none. Where he is told of something
  /// else, `told`, he has it yet to hear.
  Status take(Seen& seen, const Status& told = {}) noexcept {
    const sync::Lock lock(mutex_);
    const bool is_told_of_it = told.code == last_.code && told.system_error == last_.system_error;
    if (!told.is_ok() && !is_told_of_it) return {};
    if (std::exchange(seen, count_) == count_) return {};
    return last_;
  }

 private:
  sync::Mutex mutex_{sync::LockRank::errors};
  Status last_ APRIME_GUARDED_BY(mutex_);
  const Seen first_ = next_first_.fetch_add(Seen{1} << 32);
  Seen count_ APRIME_GUARDED_BY(mutex_) = first_;
  static inline std::atomic<Seen> next_first_{Seen{1} << 32};
};

}  // namespace aprime::engine
