#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "aprime/detail/device_atomics.hpp"
#include "aprime/kernel.hpp"

namespace aprime::detail {

/// The largest word that so many bytes consist of.
template <unsigned bytes>
using WordOf =
    std::conditional_t<bytes % 8 == 0, std::uint64_t,
                       std::conditional_t<bytes == 4, std::uint32_t,
                                          std::conditional_t<bytes == 2, std::uint16_t, std::uint8_t>>>;

/// As much of a value as is loaded at once: a word is never seen half stored.
template <unsigned bytes>
struct LoadedPiece {
  unsigned char held[bytes];

#ifdef __CUDACC__
  __device__ explicit LoadedPiece(const std::byte* from) noexcept {
    if constexpr (bytes == 16) {
      std::uint64_t words[2];
      asm volatile("ld.acquire.gpu.v2.u64 {%0, %1}, [%2];"
                   : "=l"(words[0]), "=l"(words[1])
                   : "l"(from)
                   : "memory");
      std::memcpy(held, words, bytes);
    } else if constexpr (bytes <= 2) {
      // Of words that are so small, cuda::atomic_ref has no load before CUDA 12.9.
      std::uint16_t word;
      if constexpr (bytes == 1) {
        asm volatile("ld.acquire.gpu.u8 %0, [%1];" : "=h"(word) : "l"(from) : "memory");
      } else {
        asm volatile("ld.acquire.gpu.u16 %0, [%1];" : "=h"(word) : "l"(from) : "memory");
      }
      std::memcpy(held, &word, bytes);
    } else {
      using Word = WordOf<bytes>;
      auto* const at = const_cast<Word*>(reinterpret_cast<const Word*>(from));
      const Word word = DeviceWord<Word>(*at).load(order::acquire);
      std::memcpy(held, &word, bytes);
    }
  }
#else
  // The race is the point: who loads looks afterwards whether there was one.
  __attribute__((no_sanitize("thread"))) explicit LoadedPiece(const std::byte* from) noexcept {
    using Word = WordOf<bytes>;
    for (unsigned at = 0; at < bytes; at += sizeof(Word)) {
      const Word word = *reinterpret_cast<const volatile Word*>(from + at);
      std::memcpy(held + at, &word, sizeof(Word));
    }
    asm volatile("" ::: "memory");  // x86 keeps loads in order
  }
#endif
};

/// A value from bytes that others may be storing to at the same time; then it is anything. What the caller
/// loads afterwards is loaded after it.
template <class T>
APRIME_DEVICE T load_unpinned(const std::byte* from) noexcept {
  constexpr unsigned kPiece = sizeof(T) < 16 ? sizeof(T) : 16;
  union Loaded {
    unsigned char bytes[sizeof(T)];
    T value;
    APRIME_DEVICE Loaded() {}
  } loaded;
  for (unsigned at = 0; at < sizeof(T); at += kPiece) {
    const LoadedPiece<kPiece> piece(from + at);
    std::memcpy(loaded.bytes + at, piece.held, kPiece);
  }
  return loaded.value;
}

}  // namespace aprime::detail
