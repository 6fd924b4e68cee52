#include <cstddef>
#include <cstdint>

#include "tests/explorer/explorer.hpp"

// What a compiler that instruments for ThreadSanitizer calls before each access that is not atomic. In
// programs that are not linked with it, the accesses are an Explorer's.

namespace {

void read(const void* at, std::size_t bytes) {
  if (aprime::explored::Explorer::is_running())
    aprime::explored::Explorer::running().memory().read(at, bytes);
}
void write(const void* at, std::size_t bytes) {
  if (aprime::explored::Explorer::is_running())
    aprime::explored::Explorer::running().memory().write(at, bytes);
}

}  // namespace

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit(void*) {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read1(void* at) { read(at, 1); }
void __tsan_read2(void* at) { read(at, 2); }
void __tsan_read4(void* at) { read(at, 4); }
void __tsan_read8(void* at) { read(at, 8); }
void __tsan_read16(void* at) { read(at, 16); }
void __tsan_unaligned_read2(void* at) { read(at, 2); }
void __tsan_unaligned_read4(void* at) { read(at, 4); }
void __tsan_unaligned_read8(void* at) { read(at, 8); }
void __tsan_unaligned_read16(void* at) { read(at, 16); }
void __tsan_read_range(void* at, std::size_t bytes) { read(at, bytes); }
void __tsan_write1(void* at) { write(at, 1); }
void __tsan_write2(void* at) { write(at, 2); }
void __tsan_write4(void* at) { write(at, 4); }
void __tsan_write8(void* at) { write(at, 8); }
void __tsan_write16(void* at) { write(at, 16); }
void __tsan_unaligned_write2(void* at) { write(at, 2); }
void __tsan_unaligned_write4(void* at) { write(at, 4); }
void __tsan_unaligned_write8(void* at) { write(at, 8); }
void __tsan_unaligned_write16(void* at) { write(at, 16); }
void __tsan_write_range(void* at, std::size_t bytes) { write(at, bytes); }

// What is atomic and is not explored.
std::uint8_t __tsan_atomic8_load(const std::uint8_t* at, int) {
  return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}
std::uint32_t __tsan_atomic32_fetch_add(std::uint32_t* at, std::uint32_t value, int) {
  return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);
}
std::uint32_t __tsan_atomic32_fetch_sub(std::uint32_t* at, std::uint32_t value, int) {
  return __atomic_fetch_sub(at, value, __ATOMIC_SEQ_CST);
}
std::uint64_t __tsan_atomic64_load(const std::uint64_t* at, int) {
  return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}
void __tsan_atomic64_store(std::uint64_t* at, std::uint64_t value, int) {
  __atomic_store_n(at, value, __ATOMIC_SEQ_CST);
}
void __tsan_acquire(void*) {}
void __tsan_release(void*) {}
}
