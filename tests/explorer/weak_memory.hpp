#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <type_traits>
#include <unordered_map>
#include <vector>

namespace aprime::explored {

class Explorer;

/// As those of C++ and CUDA of the same names.
enum class Order : std::uint8_t { relaxed, acquire, release, acq_rel, seq_cst };

constexpr bool acquires(Order how) noexcept { return how != Order::relaxed && how != Order::release; }
constexpr bool releases(Order how) noexcept { return how != Order::relaxed && how != Order::acquire; }

/// What the threads of an Explorer see of each other's stores where memory is as weak as C++ and CUDA let it
/// be, which no machine with x86's shows.
///
/// An atomic load gives any value that the word has had, but for those that its thread knows to be old: what
/// it has seen, what was stored before something that it has acquired, and what was old when it last slept.
/// (The views of Kang, Hur, Lahav, Vafeiadis, Dreyer: "A promising semantics for relaxed-memory concurrency",
/// POPL 2017, without the promises: nobody sees what is stored later, and the stores to a word come in the
/// order in which they were executed. Fewer programs fail than may.)
///
/// An access that is not atomic must be ordered with all others of the same bytes, of which one is a store
/// (Flanagan, Freund: "FastTrack", PLDI 2009). That is looked at in memory that is tracked.
class WeakMemory {
 public:
  explicit WeakMemory(Explorer& explorer) noexcept : explorer_(explorer) {}

  /// When a thread did something.
  struct Stamp {
    std::uint8_t who = 0;
    /// 0: before the run.
    std::uint32_t epoch = 0;
  };

  // For the Explorer.

  /// Forgets everything. `is_weak`: whether loads may give old values.
  void begin_run(bool is_weak) noexcept;
  /// The running thread sleeps: what is stored before, it sees afterwards.
  void pass_time() noexcept;

  // Where a run is set up.

  /// Has plain accesses of the bytes looked at. Whole words.
  void track(const char* name, std::span<const std::byte> bytes);
  /// Bytes that plain stores change and `load_racing` may look at meanwhile. Of what is tracked.
  void watch(std::span<const std::byte> bytes);

  // For the threads. Each is one step; to be called behind Explorer::step().

  /// What nobody loads: for who tests.
  template <class T>
  static T newest(const T& word) noexcept {
    return of_bits<T>(newest_bits(&word, sizeof(T)));
  }
  template <class T>
  T load(const T& word, Order how) noexcept {
    return of_bits<T>(load_bits(&word, sizeof(T), how, false));
  }
  /// Beside plain stores: as on a GPU, where what such a store leaves in the cache that all share is there
  /// together with what its thread knew.
  template <class T>
  T load_racing(const T& word) noexcept {
    return of_bits<T>(load_bits(&word, sizeof(T), Order::acquire, true));
  }
  template <class T>
  void store(T& word, T value, Order how) noexcept {
    store_bits(&word, sizeof(T), bits_of(value), how, false);
  }
  /// Reads the newest value and stores `change` of it. The value before.
  template <class T, class Change>
  T change(T& word, Order how, const Change& change) noexcept {
    const T before = newest(word);
    store_bits(&word, sizeof(T), bits_of(static_cast<T>(change(before))), how, true);
    return before;
  }
  /// Stores `desired` if the newest value is `expected`, and says what it was.
  template <class T>
  T compare_exchange(T& word, T expected, T desired, Order how, Order otherwise) noexcept {
    const T before = newest(word);
    if (before == expected)
      store_bits(&word, sizeof(T), bits_of(desired), how, true);
    else
      load_newest(&word, sizeof(T), otherwise);
    return before;
  }
  void acquire_fence() noexcept;
  /// Of a lock, or of anything else that orders who comes after with who came before.
  void give(const void* place) noexcept;
  void take(const void* place) noexcept;
  /// Accesses that are not atomic.
  void read(const void* at, std::size_t bytes) noexcept { access(at, bytes, false); }
  void write(const void* at, std::size_t bytes) noexcept { access(at, bytes, true); }

  bool is_weak() const noexcept { return is_weak_; }
  Stamp now() noexcept;
  /// Whether that comes before what the running thread does.
  bool knows(Stamp stamp) noexcept { return self().knows.of[stamp.who] >= stamp.epoch; }

 private:
  static constexpr std::size_t kThreadsMax = 24;
  static constexpr std::size_t kWord = 8;

  /// How many of its releases each thread knows of each.
  struct Clock {
    std::array<std::uint32_t, kThreadsMax> of{};
    void join(const Clock& other) noexcept {
      for (std::size_t t = 0; t < kThreadsMax; ++t)
        if (other.of[t] > of[t]) of[t] = other.of[t];
    }
  };
  struct Thread {
    Clock knows;
    /// Of what it has loaded without acquiring it.
    Clock has_seen;
    std::uint64_t slept_at = 0;
  };
  /// A value that a word has had.
  struct Message {
    std::uint64_t value = 0;
    /// Of a plain store, which is made after it is told of.
    bool is_to_come = false;
    Clock clock{};
    std::uint64_t at = 0;
  };
  struct Seen {
    std::uint32_t epoch = 0;
    std::size_t message = 0;
  };
  /// A word that atomic operations or racing loads have been used on.
  struct Word {
    std::vector<Message> messages;
    /// By each thread: what it knew at which time.
    std::array<std::vector<Seen>, kThreadsMax> seen;
    Clock last_load, last_store;
    /// The newest that was stored sequentially consistently.
    std::size_t strong = 0;
  };
  /// What plain accesses of eight bytes there were.
  struct Cell {
    std::uint64_t run = 0;
    Stamp store{};
    /// The last ones, of different threads.
    std::array<Stamp, 3> loads{};
    std::uint8_t next_load = 0;
    bool has_word = false;
  };
  /// Cells, kept from run to run; those that are not touched cost nothing.
  struct Shadow {
    struct Free {
      void operator()(void* cells) const noexcept { std::free(cells); }
    };
    std::size_t count;
    std::unique_ptr<void, Free> cells;
  };
  struct Tracked {
    const char* name;
    std::uintptr_t begin;
    std::uintptr_t end;
    Cell* cells;
  };

  template <class T>
  static std::uint64_t bits_of(T value) noexcept {
    static_assert(sizeof(T) <= sizeof(std::uint64_t) && std::is_trivially_copyable_v<T>);
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    return bits;
  }
  template <class T>
  static T of_bits(std::uint64_t bits) noexcept {
    T value;
    std::memcpy(&value, &bits, sizeof(T));
    return value;
  }

  std::uint64_t load_bits(const void* at, std::size_t bytes, Order how, bool races) noexcept;
  void load_newest(const void* at, std::size_t bytes, Order how) noexcept;
  void store_bits(void* at, std::size_t bytes, std::uint64_t value, Order how, bool exchanges) noexcept;
  static std::uint64_t newest_bits(const void* at, std::size_t bytes) noexcept;
  void access(const void* at, std::size_t bytes, bool stores) noexcept;

  Thread& self() noexcept;
  std::uint8_t own_number() const noexcept;
  bool knows_all(const Clock& clock) noexcept;
  Word& word_at(const void* at, std::size_t bytes) noexcept;
  Cell* cell_at(std::uintptr_t at) noexcept;
  const Tracked* tracked_at(std::uintptr_t at) const noexcept;
  void finish_plain_store(Word& word, const void* at) noexcept;
  std::size_t oldest_for_self(const Word& word, Order how) noexcept;
  void note_seen(Word& word, std::size_t message) noexcept;
  void learn(const Message& message, Order how) noexcept;
  [[noreturn]] void fail(const void* at, const char* what) noexcept;

  Explorer& explorer_;
  bool is_weak_ = false;
  /// Tells what is left of others.
  std::uint64_t run_ = 0;
  std::uint64_t messages_ = 0;
  std::array<Thread, kThreadsMax> threads_;
  std::unordered_map<const void*, Word> words_;
  std::unordered_map<const void*, Clock> places_;
  std::vector<Tracked> tracked_;
  std::vector<Shadow> shadows_;
};

}  // namespace aprime::explored
