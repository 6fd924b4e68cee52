#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include "aprime/device_span.hpp"
#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"

// Kernels of the contract suite, in source that every device can compile. Grids are of any shape: each kernel
// strides over its range.

namespace aprime::contract {

using Byte = unsigned char;

APRIME_DEVICE inline std::size_t first_index() { return std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; }
APRIME_DEVICE inline std::size_t index_step() { return std::size_t{gridDim.x} * blockDim.x; }

struct CopyBytes {
  APRIME_DEVICE void operator()(LeasedSpan<const Byte> from, LeasedSpan<Byte> to) const {
    for (std::size_t i = first_index(); i < from.size() && i < to.size(); i += index_step()) to[i] = from[i];
  }
};

/// By faults, in elements of more than a byte, because each access has its price.
struct CopyOnDemand {
  struct alignas(64) Chunk {
    Byte bytes[64];
  };

  APRIME_DEVICE void operator()(device_span<const Chunk> from, device_span<Chunk> to) const {
    for (std::size_t i = first_index(); i < from.size() && i < to.size(); i += index_step())
      to.store(i, from.load(i));
  }
};

struct StoreEverywhere {
  APRIME_DEVICE void operator()(LeasedSpan<Byte> bytes, Byte value) const {
    for (std::size_t i = first_index(); i < bytes.size(); i += index_step()) bytes[i] = value;
  }
};

/// Stores one byte every `stride` bytes, from byte 0 on.
struct StoreStrided {
  APRIME_DEVICE void operator()(LeasedSpan<Byte> bytes, std::size_t stride, Byte value) const {
    for (std::size_t i = first_index() * stride; i < bytes.size(); i += index_step() * stride)
      bytes[i] = value;
  }
};

/// Loads one byte every `stride` bytes and stores how many were not `expected`, in one thread.
struct CountOthers {
  APRIME_DEVICE void operator()(LeasedSpan<const Byte> bytes, std::size_t stride, Byte expected,
                                LeasedSpan<unsigned> others) const {
    if (first_index() != 0) return;
    unsigned n = 0;
    for (std::size_t i = 0; i < bytes.size(); i += stride) n += bytes[i] != expected;
    others[0] = n;
  }
};

/// Makes every byte one more, which is right only where the old one was seen.
struct IncrementBytes {
  APRIME_DEVICE void operator()(LeasedSpan<Byte> bytes) const {
    for (std::size_t i = first_index(); i < bytes.size(); i += index_step())
      bytes[i] = static_cast<Byte>(bytes[i] + 1);
  }
};

struct IncrementBoth {
  APRIME_DEVICE void operator()(LeasedSpan<Byte> a, LeasedSpan<Byte> b) const {
    for (std::size_t i = first_index(); i < a.size(); i += index_step()) a[i] = static_cast<Byte>(a[i] + 1);
    for (std::size_t i = first_index(); i < b.size(); i += index_step()) b[i] = static_cast<Byte>(b[i] + 1);
  }
};

/// Every thread adds 1 to the word `stride` words further than the last thread's.
struct AtomicIncrement {
  APRIME_DEVICE void operator()(LeasedSpan<unsigned> words, std::size_t stride) const {
    atomicAdd(&words[first_index() * stride % words.size()], 1);
  }
};

/// Loads one byte without a lease for it: `distance` bytes from the first leased one.
struct LoadAt {
  APRIME_DEVICE void operator()(LeasedSpan<const Byte> bytes, std::ptrdiff_t distance,
                                LeasedSpan<Byte> to) const {
    to[0] = *static_cast<const volatile Byte*>(bytes.data() + distance);
  }
};

/// Stores one byte `distance` bytes from the first leased one.
struct StoreAt {
  APRIME_DEVICE void operator()(LeasedSpan<Byte> bytes, std::ptrdiff_t distance, Byte value) const {
    *static_cast<volatile Byte*>(bytes.data() + distance) = value;
  }
};

/// The defect that a read lease's type does not let happen by accident.
struct StoreThroughReadLease {
  APRIME_DEVICE void operator()(LeasedSpan<const Byte> bytes, std::size_t at, Byte value) const {
    *const_cast<volatile Byte*>(bytes.data() + at) = value;
  }
};

struct StoreBoth {
  APRIME_DEVICE void operator()(LeasedSpan<Byte> a, LeasedSpan<Byte> b, Byte value) const {
    for (std::size_t i = first_index(); i < a.size(); i += index_step()) a[i] = value;
    for (std::size_t i = first_index(); i < b.size(); i += index_step()) b[i] = value;
  }
};

/// A store that a read lease's type does not let happen by accident.
struct AtomicOnReadLease {
  APRIME_DEVICE void operator()(LeasedSpan<const unsigned> words) const {
    atomicAdd(const_cast<unsigned*>(words.data()), 1);
  }
};

/// Adds one to byte `lane` of each granule of `granule` bytes.
struct IncrementLane {
  APRIME_DEVICE void operator()(LeasedSpan<Byte> bytes, unsigned lane, std::size_t granule) const {
    for (std::size_t i = first_index() * granule + lane; i < bytes.size(); i += index_step() * granule)
      bytes[i] = static_cast<Byte>(bytes[i] + 1);
  }
};

struct IncrementBothLanes {
  APRIME_DEVICE void operator()(LeasedSpan<Byte> a, LeasedSpan<Byte> b, unsigned lane,
                                std::size_t granule) const {
    IncrementLane{}(a, lane, granule);
    IncrementLane{}(b, lane, granule);
  }
};

using Words = std::pair<unsigned, unsigned>;
/// Always of somebody's making: it has no default.
struct Labelled {
  constexpr explicit Labelled(unsigned l) : label(l) {}
  unsigned label;
};

/// Notes what it was given. (Where the CPU's text is, for not every device can read it.)
struct NoteArguments {
  APRIME_DEVICE void operator()(const char* text, Words words, Labelled labelled,
                                LeasedSpan<std::uint64_t> noted) const {
    noted[0] = reinterpret_cast<std::uintptr_t>(text);
    noted[1] = words.first + words.second + labelled.label;
  }
};

// Tasks. Those that look at bytes on the CPU have a CUDA version that copies them there.

/// Not the same when it runs twice, nor before what it should follow.
struct DoubleBytes {
  void operator()(LeasedSpan<Byte> bytes) const {
    for (Byte& b : bytes) b = static_cast<Byte>(2 * b);
  }
};

struct RequireNonZero {
  void operator()(LeasedSpan<const Byte> bytes) const {
    if (std::find(bytes.begin(), bytes.end(), Byte{0}) != bytes.end()) throw std::runtime_error("zeros");
  }
};

struct TellAddress {
  const Byte** address;
  void operator()(LeasedSpan<const Byte> bytes) const { *address = bytes.data(); }
};

struct TellSum {
  unsigned* sum;
  void operator()(Words words) const { *sum = words.first + words.second; }
};

struct ThrowFromTask {
  void operator()() const { throw std::runtime_error("no luck"); }
  void operator()(LeasedSpan<Byte>) const { (*this)(); }
};

struct ReverseBytes {
  void operator()(LeasedSpan<Byte> bytes) const { std::reverse(bytes.begin(), bytes.end()); }
};

}  // namespace aprime::contract
