#pragma once

#include <boost/context/fiber.hpp>

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "aprime/detail/thread_cursor.hpp"
#include "host/device/sanitizer_fibers.hpp"
#include "host/os/memory.hpp"

namespace aprime::device {

/// Exceptions that are in flight or being handled. The C++ run-time library keeps them per OS thread, so they
/// change hands with the stack. Layout: Itanium C++ ABI, "Exception Handling", 2.2.2.
struct ExceptionState {
  void* caught = nullptr;
  unsigned uncaught = 0;
};

/// One stack and the flow of control on it. Belongs to one worker and is touched by no other thread.
struct Fiber {
  /// Where to continue. In a union because boost::context::fiber's destructor would unwind the stack, and an
  /// abandoned kernel must not be unwound: it may have been interrupted between any two instructions.
  union Continuation {
    boost::context::fiber value;
    Continuation() noexcept : value{} {}
    ~Continuation() {}
  };

  Continuation continuation;
  std::byte* stack_bottom = nullptr;
  std::size_t stack_bytes = 0;
  /// Where the first frame goes: at or a little below the end of the stack.
  std::byte* stack_top = nullptr;
  ExceptionState exceptions;
  void* tsan_identity = nullptr;
  void* asan_fake_stack = nullptr;

  /// Link in the one list the fiber is on: idle in the pool, ready, or waiting at the block's barrier.
  Fiber* next = nullptr;
  /// threadIdx while the fiber is switched out.
  Index3 thread_index;
  detail::ThreadCursor cursor;
  /// The fiber holds one thread that has waited, and takes no other.
  bool dedicated = false;
  /// Taken from the pool and not given back.
  bool in_use = false;
};

/// First in, first out; intrusive; owns nothing.
class FiberList {
 public:
  [[nodiscard]] bool empty() const noexcept { return head_ == nullptr; }
  [[nodiscard]] Fiber* front() const noexcept { return head_; }
  void push(Fiber& fiber) noexcept {
    fiber.next = nullptr;
    (head_ == nullptr ? head_ : tail_->next) = &fiber;
    tail_ = &fiber;
  }
  [[nodiscard]] Fiber& pop() noexcept {
    Fiber& fiber = *head_;
    head_ = fiber.next;
    return fiber;
  }
  /// Appends `other`, which becomes empty.
  void splice(FiberList& other) noexcept {
    if (other.empty()) return;
    (head_ == nullptr ? head_ : tail_->next) = other.head_;
    tail_ = other.tail_;
    other.head_ = nullptr;
  }
  void clear() noexcept { head_ = nullptr; }

 private:
  Fiber* head_ = nullptr;
  Fiber* tail_ = nullptr;
};

/// Switches between the fibers of one worker. `root` stands for the worker thread's own stack.
class FiberSwitch {
 public:
  /// To be constructed on the worker thread itself, whose stack becomes the root.
  FiberSwitch();

  [[nodiscard]] Fiber& root() noexcept { return root_; }
  [[nodiscard]] Fiber& current() noexcept { return *current_; }

  /// Suspends the current fiber and continues `to`, which must be another one. Returns when somebody switches
  /// back. Saves and restores threadIdx and the exception state. Inlined into its callers, and those into
  /// theirs: a switch leaves the processor's return predictor out of step, so that every return that follows
  /// costs a misprediction.
  [[gnu::always_inline]] void switch_to(Fiber& to) noexcept {
    Fiber& from = *current_;
    assert(&from != &to);
    from.exceptions = std::exchange(*exceptions_, to.exceptions);
    from.thread_index = std::exchange(detail::threadIdx, to.thread_index);
    current_ = &to;
    left_ = &from;
    sanitizer::leave_stack(&from.asan_fake_stack, to.stack_bottom, to.stack_bytes);
    sanitizer::assume_identity(to.tsan_identity);
    arrive(std::move(to.continuation.value).resume());
  }

  /// First thing that a new fiber does.
  [[gnu::always_inline]] void arrive(boost::context::fiber&& left) noexcept {
    sanitizer::enter_stack(current_->asan_fake_stack);
    left_->continuation.value = std::move(left);
  }

 private:
  Fiber root_;
  Fiber* current_ = &root_;
  Fiber* left_ = nullptr;
  ExceptionState* exceptions_;
};

/// Stacks with fibers on them, kept for reuse; last given, first taken, so that few are in use and those few
/// are in the cache. A fiber runs `entry(owner)` when first continued; entry never returns, but gives its
/// fiber back and switches away, and runs on from there when the fiber is taken again. One thread only.
class FiberPool {
 public:
  using Entry = void (*)(void* owner) noexcept;

  /// Below each stack. What CUDA lets a thread have of local memory: a page is not enough, because nothing
  /// touches a large array at its end first. And a page more: from an even number of pages, stacks' tops
  /// would lie in few sets of the processor's caches of translations.
  static constexpr std::size_t guard_bytes = (std::size_t{512} << 10) + os::kPageBytes;

  /// `stack_bytes`: usable bytes of each stack; rounded up to whole pages. Below each stack lies a guard, so
  /// large that no frame steps over it which a GPU would have a stack for; where the kernel has guards only
  /// at the cost of memory areas (before Linux 6.13), below the first few thousand of the process.
  FiberPool(FiberSwitch& fibers, std::size_t stack_bytes, Entry entry, void* owner);
  /// Unwinds nothing.
  ~FiberPool();
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;

  /// nullptr when there is no memory for another stack.
  [[nodiscard]] Fiber* take() noexcept;
  /// Makes take() succeed `count` times in a row. Returns false when memory ran out before that.
  [[nodiscard]] bool reserve(std::size_t count) noexcept;
  void give(Fiber& fiber) noexcept;

  /// Takes back every fiber in use. To be called on the root.
  /// `abandon`: they stopped in mid-kernel; what is on their stacks is forgotten, not unwound.
  void take_back_all(bool abandon) noexcept;

  /// Fibers that exist, idle or not.
  [[nodiscard]] std::uint64_t count() const noexcept { return fibers_.size(); }

 private:
  void grow();
  void begin(Fiber& fiber) noexcept;
  void drop_identity(Fiber& fiber) noexcept;

  FiberSwitch& fibers_switch_;
  const std::size_t stack_bytes_;
  const Entry entry_;
  void* const owner_;
  std::deque<Fiber> fibers_;
  std::vector<os::Mapped> slabs_;
  std::uint64_t guards_with_areas_ = 0;
  Fiber* idle_ = nullptr;
  std::size_t idle_count_ = 0;
};

}  // namespace aprime::device
