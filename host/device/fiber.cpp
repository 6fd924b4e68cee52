#include "host/device/fiber.hpp"

#include <cxxabi.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>
#include <system_error>
#include <utility>

#include "host/os/syscalls.hpp"

namespace aprime::device {

namespace {

// Linux 6.13; unknown to older headers. Guards without a memory area of their own: with mprotect every stack
// costs two of the process's 65,530 areas, which the host view needs.
constexpr int madvise_guard_install = 102;
// So many of them stacks may have, in the whole process.
constexpr std::uint64_t guards_with_areas_max = os::kMemoryAreasUsual / 16;
constinit std::atomic<std::uint64_t> guards_with_areas{0};

constexpr std::size_t fibers_per_slab = 32;

// The stacks' tops lie a whole number of pages apart, so the few lines that each fiber touches at a switch
// would all fall into the same sets of the first-level cache. Shifting the tops against one another spreads
// them over the page.
constexpr std::size_t top_shift_bytes = 192;
constexpr std::size_t top_shifts = 21;

struct KeepStack {
  void deallocate(boost::context::stack_context& /*stack*/) const noexcept {}
};

std::size_t page_bytes() noexcept { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

/// Whether it took memory areas. Where these run short, a stack goes without: all that a guard is good for is
/// to end a faulty kernel sooner.
bool install_guard(std::byte* at) noexcept {
  if (os::sys::madvise(at, FiberPool::guard_bytes, madvise_guard_install) == 0) return false;
  if (guards_with_areas.fetch_add(1) < guards_with_areas_max &&
      os::sys::mprotect(at, FiberPool::guard_bytes, PROT_NONE) == 0)
    return true;
  guards_with_areas.fetch_sub(1);
  return false;
}

}  // namespace

FiberSwitch::FiberSwitch()
    : exceptions_(reinterpret_cast<ExceptionState*>(static_cast<void*>(abi::__cxa_get_globals()))) {
  pthread_attr_t attributes;
  if (const int error = ::pthread_getattr_np(::pthread_self(), &attributes); error != 0) {
    throw std::system_error(error, std::generic_category(), "stack of a device worker");
  }
  void* bottom = nullptr;
  ::pthread_attr_getstack(&attributes, &bottom, &root_.stack_bytes);
  ::pthread_attr_destroy(&attributes);
  root_.stack_bottom = static_cast<std::byte*>(bottom);
  root_.tsan_identity = sanitizer::current_identity();
}

FiberPool::FiberPool(FiberSwitch& fibers, std::size_t stack_bytes, Entry entry, void* owner)
    : fibers_switch_(fibers),
      stack_bytes_((stack_bytes + page_bytes() - 1) / page_bytes() * page_bytes()),
      entry_(entry),
      owner_(owner) {}

FiberPool::~FiberPool() {
  for (Fiber& fiber : fibers_) {
    sanitizer::clean_stack(fiber.stack_bottom, fiber.stack_bytes);
    drop_identity(fiber);
  }
  guards_with_areas.fetch_sub(guards_with_areas_);
}

Fiber* FiberPool::take() noexcept {
  if (idle_ == nullptr && !reserve(1)) return nullptr;
  Fiber& fiber = *idle_;
  idle_ = fiber.next;
  --idle_count_;
  fiber.in_use = true;
  fiber.dedicated = false;
  fiber.cursor.index = 0;
  fiber.cursor.fast_end = 0;
  fiber.cursor.first = 0;
  fiber.cursor.in_thread = false;
  return &fiber;
}

void FiberPool::give(Fiber& fiber) noexcept {
  fiber.in_use = false;
  fiber.next = idle_;
  idle_ = &fiber;
  ++idle_count_;
}

bool FiberPool::reserve(std::size_t count) noexcept {
  try {
    while (idle_count_ < count) grow();
  } catch (const std::exception&) {
    return idle_count_ >= count;
  }
  return true;
}

void FiberPool::take_back_all(bool abandon) noexcept {
  for (Fiber& fiber : fibers_) {
    if (!fiber.in_use) continue;
    if (abandon) {
      drop_identity(fiber);
      sanitizer::clean_stack(fiber.stack_bottom, fiber.stack_bytes);
      begin(fiber);
    }
    give(fiber);
  }
}

/// On the root. There and back in order: the stack's next user comes after everything its last one did. A
/// fiber that is switched out is overlooked exactly once, and must not be when it goes.
void FiberPool::drop_identity(Fiber& fiber) noexcept {
  sanitizer::assume_identity_in_order(fiber.tsan_identity);
  sanitizer::Overlook::end();
  sanitizer::assume_identity_in_order(fibers_switch_.root().tsan_identity);
  sanitizer::destroy_identity(std::exchange(fiber.tsan_identity, nullptr));
}

void FiberPool::grow() {
  const std::size_t stride = guard_bytes + stack_bytes_;
  slabs_.reserve(slabs_.size() + 1);
  std::byte* const base = slabs_.emplace_back(os::Mapped::reserved(stride * fibers_per_slab)).data();
  // A stack uses a few KiB; a huge page would hold dozens of stacks' worth of memory for each touched one.
  // Advice only: a kernel without huge pages refuses it.
  static_cast<void>(os::sys::madvise(base, stride * fibers_per_slab, MADV_NOHUGEPAGE));
  for (std::size_t i = 0; i < fibers_per_slab; ++i) {
    std::byte* const guard = base + i * stride;
    if (install_guard(guard)) ++guards_with_areas_;
    const std::size_t shift = fibers_.size() % top_shifts * top_shift_bytes;
    Fiber& fiber = fibers_.emplace_back();
    fiber.stack_bottom = guard + guard_bytes;
    fiber.stack_bytes = stack_bytes_;
    fiber.stack_top = fiber.stack_bottom + stack_bytes_ - shift;
    begin(fiber);
    give(fiber);
  }
}

void FiberPool::begin(Fiber& fiber) noexcept {
  fiber.exceptions = {};
  fiber.asan_fake_stack = nullptr;
  fiber.tsan_identity = sanitizer::create_identity();

  boost::context::stack_context stack;
  stack.sp = fiber.stack_top;
  stack.size = static_cast<std::size_t>(fiber.stack_top - fiber.stack_bottom);
  auto run = [this](boost::context::fiber&& left) -> boost::context::fiber {
    fibers_switch_.arrive(std::move(left));
    entry_(owner_);
    return {};
  };
  // Construction enters the new stack for a moment, so it is done under the new identity; and that identity
  // starts out overlooked, because the first switch to it begins on the stack of another.
  void* const creator = sanitizer::current_identity();
  sanitizer::assume_identity_in_order(fiber.tsan_identity);
  sanitizer::Overlook::begin();
  // Placement, not assignment: what the old continuation refers to must not be unwound.
  new (&fiber.continuation.value)
      boost::context::fiber(std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack),
                            KeepStack{}, std::move(run));
  sanitizer::assume_identity(creator);
}

}  // namespace aprime::device
