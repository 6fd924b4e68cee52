#include "host/os/trap.hpp"

#include <pthread.h>
#include <sched.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <iterator>
#include <memory>
#include <mutex>
#include <vector>

#include "host/os/failure.hpp"
#include "host/os/futex.hpp"
#include "host/os/signal_chain.hpp"

#if !defined(__x86_64__)
#error "is_write() reads the x86-64 page-fault error code; port it to this processor."
#endif

namespace aprime::os {

struct TrapRegistration::Entry {
  std::byte* const begin;
  std::byte* const end;
  TrapTarget* const target;
  /// Of the process that registered it; see `forks`.
  const std::uint64_t process;
  /// Threads that found this entry and are not back from its target.
  std::atomic<std::uint32_t> inside{0};
};

/// The registry: an immutable sorted snapshot, replaced as a whole. Readers announce themselves in one of two
/// counters; a writer that has published a new snapshot drains both in turn before it frees the old one or
/// uses it again, so a reader never waits and a writer waits for nanoseconds (sleepable RCU: McKenney,
/// "Sleepable RCU", 2006).
///
/// All static and without destructors, because signals come until the process is gone.
struct TrapRegistry {
  using Entry = TrapRegistration::Entry;
  using Snapshot = std::vector<Entry*>;

  static inline constinit std::mutex writer{};
  static inline constinit std::atomic<Snapshot*> current{nullptr};
  /// The writer's, with room for the current one: who removes an entry has nobody to tell that memory ran
  /// out.
  static inline constinit Snapshot* spare = nullptr;
  static inline constinit std::atomic<std::uint32_t> phase{0};
  static inline constinit std::atomic<std::uint32_t> readers[2]{};
  /// Removers that wait for an entry's `inside` to become 0, and the word they sleep on. Not part of the
  /// entry, which may be gone when the last thread inside gets to wake them.
  static inline constinit std::atomic<std::uint32_t> removers{0};
  static inline constinit std::atomic<std::uint32_t> left{0};
  /// Counts the forks between the first process and this one. Threads are not inherited, so what they were
  /// inside of is not either.
  static inline constinit std::atomic<std::uint64_t> forks{0};
  static inline constinit bool prepared_for_fork = false;
  /// In the static block of thread-local storage: a handler cannot have the first access of a thread allocate
  /// it.
  [[gnu::tls_model("initial-exec")]] static inline constinit thread_local TrapTarget* thread_target = nullptr;

  static Entry* enter(const std::byte* address) noexcept {
    std::atomic<std::uint32_t>& counter = readers[phase.load() & 1];
    counter.fetch_add(1);
    const Snapshot* snapshot = current.load();
    Entry* found = nullptr;
    if (snapshot != nullptr) {
      const auto after = std::upper_bound(snapshot->begin(), snapshot->end(), address,
                                          [](const std::byte* a, const Entry* e) { return a < e->begin; });
      if (after != snapshot->begin() && address < (*(after - 1))->end) {
        found = *(after - 1);
        found->inside.fetch_add(1);
      }
    }
    counter.fetch_sub(1);
    return found;
  }

  static bool overlaps(const std::byte* begin, const std::byte* end) noexcept {
    std::atomic<std::uint32_t>& counter = readers[phase.load() & 1];
    counter.fetch_add(1);
    const Snapshot* snapshot = current.load();
    bool found = false;
    if (snapshot != nullptr) {
      const auto first = std::upper_bound(snapshot->begin(), snapshot->end(), begin,
                                          [](const std::byte* a, const Entry* e) { return a < e->end; });
      found = first != snapshot->end() && (*first)->begin < end;
    }
    counter.fetch_sub(1);
    return found;
  }

  static void leave(Entry& entry) noexcept {
    entry.inside.fetch_sub(1);
    // Sequentially consistent, as is the remover's pair of accesses: one of the two sees the other.
    if (removers.load() == 0) return;
    left.fetch_add(1);
    futex_wake_all(left);
  }

  /// Returns the one before, which nobody looks at any more.
  static Snapshot* publish(Snapshot* next) noexcept {
    Snapshot* const old = current.exchange(next);
    for (int turn = 0; turn < 2; ++turn) {
      const std::uint32_t before = phase.fetch_add(1);
      while (readers[before & 1].load() != 0) ::sched_yield();
    }
    return old;
  }

  static void insert(Entry& entry) {
    const std::lock_guard lock(writer);
    const Snapshot* old = current.load();
    auto next = old == nullptr ? std::make_unique<Snapshot>() : std::make_unique<Snapshot>(*old);
    const auto at = std::lower_bound(next->begin(), next->end(), &entry,
                                     [](const Entry* a, const Entry* b) { return a->begin < b->begin; });
    assert(at == next->end() || entry.end <= (*at)->begin);
    assert(at == next->begin() || (*(at - 1))->end <= entry.begin);
    next->insert(at, &entry);
    if (spare == nullptr) spare = new Snapshot;
    spare->reserve(next->size());
    prepare_for_fork();
    install_fault_handler(&on_signal);
    delete publish(next.release());
  }

  static void remove(Entry& entry) noexcept {
    {
      const std::lock_guard lock(writer);
      if (entry.process != forks.load()) return;
      const Snapshot* old = current.load();
      spare->clear();
      std::remove_copy(old->begin(), old->end(), std::back_inserter(*spare), &entry);
      spare = publish(spare);
    }
    // Without the lock: a target may take long.
    removers.fetch_add(1);
    for (;;) {
      const std::uint32_t seen = left.load();
      if (entry.inside.load() == 0) break;
      futex_wait(left, seen, std::chrono::seconds(1));
    }
    removers.fetch_sub(1);
  }

  static void prepare_for_fork() {
    if (prepared_for_fork) return;
    const int error = ::pthread_atfork([] { writer.lock(); }, [] { writer.unlock(); },
                                       [] {
                                         delete current.exchange(nullptr);
                                         readers[0].store(0);
                                         readers[1].store(0);
                                         removers.store(0);
                                         forks.fetch_add(1);
                                         writer.unlock();
                                       });
    if (error != 0) throw failure(Errc::resources, "cannot prepare for fork()", error);
    prepared_for_fork = true;
  }

  static bool is_trap(int signal, const siginfo_t* info) noexcept {
    return (signal == SIGSEGV && info->si_code == SEGV_ACCERR) ||
           (signal == SIGBUS && info->si_code == BUS_ADRERR);
  }

  static bool is_write(const void* context) noexcept {
    constexpr greg_t kWriteBit = 2;  // Intel SDM volume 3, "Page-Fault Exceptions": W/R
    return (static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & kWriteBit) != 0;
  }

  // Not for ThreadSanitizer, which calls the fibers of one thread threads, and so sees races for its
  // thread-locals.
  __attribute__((no_sanitize("thread"))) static void on_signal(int signal, siginfo_t* info,
                                                               void* context) noexcept {
    const int saved_errno = errno;
    // The system calls that serve a trap are cancellation points, the access that trapped is none: a thread
    // that was cancelled would be unwound out of this handler.
    int saved_cancel_state = PTHREAD_CANCEL_ENABLE;
    ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &saved_cancel_state);
    const TrapTarget::Answer answer = ask_target(signal, info, context);
    ::pthread_setcancelstate(saved_cancel_state, nullptr);
    if (answer == TrapTarget::Answer::not_mine) {
      forward_signal(signal, info, context);
    } else if (answer == TrapTarget::Answer::bus_error) {
      siginfo_t bus = *info;
      bus.si_signo = SIGBUS;
      bus.si_code = BUS_ADRERR;
      forward_signal(SIGBUS, &bus, context);
    }
    errno = saved_errno;
  }

  /// Sent by the processor for an access of this thread, not by kill() or sigqueue(), and the program's
  /// fault, not the memory's.
  static bool is_fault(int signal, const siginfo_t* info) noexcept {
    const bool is_hardware_error =
        signal == SIGBUS && (info->si_code == BUS_MCEERR_AR || info->si_code == BUS_MCEERR_AO);
    return info->si_code > 0 && !is_hardware_error;
  }

  static TrapTarget::Answer ask_target(int signal, const siginfo_t* info, void* context) noexcept {
    auto* const address = static_cast<std::byte*>(info->si_addr);
    const Trap trap{address, is_write(context), context, signal};
    Entry* const entry = is_trap(signal, info) ? enter(address) : nullptr;
    if (entry != nullptr) {
      const TrapTarget::Answer answer = entry->target->on_trap(trap);
      leave(*entry);
      return answer;
    }
    if (thread_target != nullptr && is_fault(signal, info)) return thread_target->on_trap(trap);
    return TrapTarget::Answer::not_mine;
  }
};

TrapRegistration::TrapRegistration(std::byte* begin, std::size_t size, TrapTarget& target)
    : entry_(new Entry{begin, begin + size, &target, TrapRegistry::forks.load()}) {
  TrapRegistry::insert(*entry_);
}

TrapRegistration& TrapRegistration::operator=(TrapRegistration&& other) noexcept {
  entry_.swap(other.entry_);
  return *this;
}

TrapRegistration::~TrapRegistration() {
  if (entry_ != nullptr) TrapRegistry::remove(*entry_);
}

// Not for ThreadSanitizer, as `on_signal`.
__attribute__((no_sanitize("thread"))) void set_thread_trap_target(TrapTarget* target) noexcept {
  TrapRegistry::thread_target = target;
}

bool is_trapped(const std::byte* begin, std::size_t size) noexcept {
  return size > 0 && TrapRegistry::overlaps(begin, begin + size);
}

}  // namespace aprime::os
