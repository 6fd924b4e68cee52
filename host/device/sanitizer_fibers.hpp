#pragma once

#include <cstddef>

#include "host/os/sanitizers.hpp"

// What the sanitizers have to be told about fibers. AddressSanitizer is told wherever it is in the program:
// kernels that were compiled with it may run on the fibers of a library that was not. Without a sanitizer
// nothing is done.

// As in <sanitizer/common_interface_defs.h> and <sanitizer/asan_interface.h>; null without it.
extern "C" {
[[gnu::weak]] void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, std::size_t bytes);
[[gnu::weak]] void __sanitizer_finish_switch_fiber(void* fake_stack, const void** from_bottom,
                                                   std::size_t* from_bytes);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* begin, std::size_t bytes);
}

#ifdef APRIME_TSAN
// In the run-time library, but in no header of it.
extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);
extern "C" void AnnotateIgnoreWritesBegin(const char* file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char* file, int line);
#endif

namespace aprime::device::sanitizer {

#ifdef APRIME_ASAN
inline constexpr bool address = true;
#else
inline constexpr bool address = false;
#endif

#ifdef APRIME_TSAN
inline constexpr bool thread = true;

/// While one lives, ThreadSanitizer overlooks the plain accesses of the current fiber; atomics still count.
/// The executor's own bookkeeping is shared by the fibers of one worker, which run one at a time, but as
/// ThreadSanitizer is told of switches that synchronise nothing, it would see races there.
class Overlook {
 public:
  Overlook() noexcept { begin(); }
  ~Overlook() { end(); }
  Overlook(const Overlook&) = delete;
  Overlook& operator=(const Overlook&) = delete;
  static void begin() noexcept {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  static void end() noexcept {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
};

inline void* current_identity() noexcept { return __tsan_get_current_fiber(); }
inline void* create_identity() noexcept { return __tsan_create_fiber(0); }
inline void destroy_identity(void* identity) noexcept { __tsan_destroy_fiber(identity); }
/// From here on accesses belong to `identity`. Orders nothing.
inline void assume_identity(void* identity) noexcept {
  __tsan_switch_to_fiber(identity, __tsan_switch_to_fiber_no_sync);
}
/// As assume_identity(), and everything before is ordered before everything after.
inline void assume_identity_in_order(void* identity) noexcept { __tsan_switch_to_fiber(identity, 0); }
#else
inline constexpr bool thread = false;

class Overlook {
 public:
  Overlook() noexcept {}
  ~Overlook() {}
  Overlook(const Overlook&) = delete;
  Overlook& operator=(const Overlook&) = delete;
  static void begin() noexcept {}
  static void end() noexcept {}
};

inline void* current_identity() noexcept { return nullptr; }
inline void* create_identity() noexcept { return nullptr; }
inline void destroy_identity(void* /*identity*/) noexcept {}
inline void assume_identity(void* /*identity*/) noexcept {}
inline void assume_identity_in_order(void* /*identity*/) noexcept {}
#endif

/// Immediately before a switch. `*fake_stack` keeps the leaving fiber's fake stack.
inline void leave_stack(void** fake_stack, const void* to_bottom, std::size_t to_bytes) noexcept {
  if (&__sanitizer_start_switch_fiber != nullptr)
    __sanitizer_start_switch_fiber(fake_stack, to_bottom, to_bytes);
}
/// First thing after a switch, on the new stack.
inline void enter_stack(void* fake_stack) noexcept {
  if (&__sanitizer_finish_switch_fiber != nullptr)
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}
/// The frames of an abandoned fiber left marks all over its stack.
inline void clean_stack(void* bottom, std::size_t bytes) noexcept {
  if (&__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(bottom, bytes);
}

}  // namespace aprime::device::sanitizer
