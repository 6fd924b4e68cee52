#pragma once

#include <cassert>
#include <cstdint>
#include <mutex>

// Clang's thread-safety analysis (the "threadsafety" preset) checks these; other compilers ignore them.
#if defined(__clang__)
#define APRIME_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define APRIME_THREAD_ANNOTATION(x)
#endif
#define APRIME_CAPABILITY(name) APRIME_THREAD_ANNOTATION(capability(name))
#define APRIME_SCOPED_CAPABILITY APRIME_THREAD_ANNOTATION(scoped_lockable)
#define APRIME_GUARDED_BY(m) APRIME_THREAD_ANNOTATION(guarded_by(m))
#define APRIME_REQUIRES(...) APRIME_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define APRIME_ACQUIRE(...) APRIME_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define APRIME_RELEASE(...) APRIME_THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define APRIME_EXCLUDES(...) APRIME_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))

namespace aprime::sync {

/// The order in which locks may be taken: a thread that holds a lock takes only locks of a higher rank. No
/// lock is held while waiting for a granule, nor across I/O, unless its line says so.
enum class LockRank : std::uint8_t {
  none = 0,
  /// The end of a mount. Held across all that ends with it, and while devices' bytes are copied home.
  mount_end,
  /// The threads that serve a mount. Held until all of them have ended.
  mount_threads,
  /// One directory that a program has open through a mount: its listing. Held across reading the directory
  /// and looking up its entries.
  open_directory,
  /// RuntimeState: its files and devices. Held across opening a file; never on a fault path.
  runtime,
  /// CoherentFile: its mappings and views, resize. Held across mapping and ftruncate; never on a fault path.
  file,
  /// CoherentFile: its tables, while they grow. Held across mapping memory; never on a fault path.
  file_tables,
  /// A device's queue of launches, and who may admit leases.
  queue,
  /// One grid executor's current launch.
  executor,
  /// CoherentFile: its fdatasync, and what must be written again before it, held across that I/O; what a sync
  /// recalls from a mount, held while waiting for the granules. Never on a fault path.
  file_sync,
  /// A file's sticky writeback errors.
  errors,
  /// A mount's table of inodes; its pool of workers. Bounded work only.
  inodes,
  workers,
  /// CoherentFile: pages read during a recall. Held while the directory is changed; taken on fault paths.
  late_pages,
  /// A frame pool's table: bounded searches only. Taken on fault paths.
  frames,
  /// A CUDA device's queue of copies: a few pointers. Taken on fault paths.
  copies,
};

/// A mutex that knows its rank; debug builds abort when locks are taken out of order.
class APRIME_CAPABILITY("mutex") Mutex {
 public:
  explicit Mutex(LockRank rank) noexcept : rank_(rank) {}
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() APRIME_ACQUIRE() {
    assert(highest_held() < rank_ && "lock order: see LockRank");
    mutex_.lock();
    held_before_ = highest_held();
    set_highest_held(rank_);
  }
  void unlock() APRIME_RELEASE() {
    set_highest_held(held_before_);
    mutex_.unlock();
  }

 private:
  static LockRank& rank_of_thread() noexcept {
    static thread_local LockRank rank = LockRank::none;
    return rank;
  }
  // Not for ThreadSanitizer, which calls the fibers of one thread threads, and so sees races for its
  // thread-locals.
  __attribute__((no_sanitize("thread"))) static LockRank highest_held() noexcept { return rank_of_thread(); }
  __attribute__((no_sanitize("thread"))) static void set_highest_held(LockRank rank) noexcept {
    rank_of_thread() = rank;
  }

  std::mutex mutex_;
  const LockRank rank_;
  LockRank held_before_ = LockRank::none;
};

/// Holds a Mutex for a scope.
class APRIME_SCOPED_CAPABILITY Lock {
 public:
  explicit Lock(Mutex& m) APRIME_ACQUIRE(m) : mutex_(m) { mutex_.lock(); }
  ~Lock() APRIME_RELEASE() { mutex_.unlock(); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace aprime::sync
