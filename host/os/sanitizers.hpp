#pragma once

// Which sanitizer this is built with, and what ThreadSanitizer cannot see by itself.

#if defined(__SANITIZE_ADDRESS__)
#define APRIME_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define APRIME_ASAN 1
#endif
#endif

#if defined(__SANITIZE_THREAD__)
#define APRIME_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define APRIME_TSAN 1
#endif
#endif

#ifdef APRIME_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace aprime::os::sanitizer {

/// An order between threads that the kernel keeps, by a system call that ThreadSanitizer does not follow.
/// What a thread does before it calls `before()` happens before what another does after a later `after()`.
/// Nothing in a build without ThreadSanitizer. Any thread, any time.
class KernelOrder {
 public:
#ifdef APRIME_TSAN
  void before() noexcept { __tsan_release(this); }
  void after() noexcept { __tsan_acquire(this); }
#else
  void before() noexcept {}
  void after() noexcept {}
#endif
};

}  // namespace aprime::os::sanitizer
