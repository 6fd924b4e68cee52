#pragma once

#include <cstddef>
#include <cstdint>

#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"
#include "tests/contract/kernels.hpp"

// Kernels and a task that know each byte exactly, in source that every device can compile.

namespace aprime::stress {

/// What they store to byte `i` of what they are given.
APRIME_HOST_DEVICE inline std::uint8_t byte_of(std::uint8_t salt, std::size_t i) {
  return static_cast<std::uint8_t>(salt + i * 7);
}

struct StoreBytes {
  std::uint8_t salt;
  APRIME_DEVICE void operator()(LeasedSpan<std::uint8_t> bytes) const {
    for (std::size_t i = contract::first_index(); i < bytes.size(); i += contract::index_step())
      bytes[i] = byte_of(salt, i);
  }
};

/// The same in one thread.
struct StoreBytesTask {
  std::uint8_t salt;
  void operator()(LeasedSpan<std::uint8_t> bytes) const {
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = byte_of(salt, i);
  }
};

}  // namespace aprime::stress
