#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "aprime/error.hpp"
#include "aprime/units.hpp"

namespace aprime::os {

/// Bytes of a host page; 4096 is the smallest granule, and larger host pages are refused when a runtime is
/// made.
inline constexpr std::size_t kPageBytes = 4096;
inline constexpr std::size_t kHugeBytes = std::size_t{2} << 20;
/// Memory areas (VMAs) that a process may have, unless vm.max_map_count was set.
inline constexpr std::uint64_t kMemoryAreasUsual = 65530;

/// Owns one mmap()ed address range. Not copyable; moving keeps the address.
class Mapped {
 public:
  Mapped() = default;
  /// Takes ownership of an existing mapping.
  Mapped(std::byte* base, std::size_t size) noexcept : base_(base), size_(size) {}
  Mapped(Mapped&& o) noexcept : base_(std::exchange(o.base_, nullptr)), size_(std::exchange(o.size_, 0)) {}
  Mapped& operator=(Mapped&& o) noexcept {
    std::swap(base_, o.base_);
    std::swap(size_, o.size_);
    return *this;
  }
  ~Mapped();

  /// Zeroed private memory that costs nothing until it is touched, not even in a program that locks all of
  /// its memory (mlockall). \throws Error(resources)
  static Mapped reserved(std::size_t size);
  /// The same, aligned to 2 MiB if `huge_aligned`, left out of core dumps and not inherited by fork().
  /// \throws Error(resources)
  static Mapped anonymous(std::size_t size, bool huge_aligned = false);

  /// Makes anonymous memory zeros again, and gives what it used back. Valid answers: ok; resources.
  Status clear() noexcept;

  std::byte* data() const noexcept { return base_; }
  std::size_t size() const noexcept { return size_; }
  std::span<std::byte> bytes() const noexcept { return {base_, size_}; }
  explicit operator bool() const noexcept { return base_ != nullptr; }

 private:
  std::byte* base_ = nullptr;
  std::size_t size_ = 0;
};

/// Makes pages of private anonymous memory absent, and so zeros at their next touch, also those that the
/// program has locked since. Valid answers: ok; resources.
Status discard_pages(std::byte* at, std::size_t size) noexcept;

/// A table of zero-initialised `T`, indexed from 0, which grows without moving: entries keep their address
/// for the table's life, so readers need no lock while it grows. Memory is used for touched pages only.
///
/// Extent 0 holds entries [0, 2^16); extent k > 0 holds [2^(15+k), 2^(16+k)).
/// `reserve` may be called by one thread at a time; `operator[]` by any, for indices that were reserved
/// before.
template <class T>
class GrowingTable {
 public:
  /// Makes entries [0, count) usable. \throws Error(resources)
  void reserve(std::uint64_t count) {
    for (unsigned k = 0; k < kExtents && capacity() < count; ++k) {
      if (extents_[k].load(std::memory_order_relaxed) != nullptr) continue;
      const std::uint64_t entries = k == 0 ? kFirst : kFirst << (k - 1);
      owners_[k] = Mapped::anonymous(static_cast<std::size_t>(entries * sizeof(T)));
      extents_[k].store(reinterpret_cast<T*>(owners_[k].data()), std::memory_order_release);
      capacity_.store(capacity() + entries, std::memory_order_release);
    }
  }
  std::uint64_t capacity() const noexcept { return capacity_.load(std::memory_order_acquire); }

  /// \pre index < capacity()
  T& operator[](std::uint64_t index) const noexcept {
    const unsigned k = index < kFirst ? 0u : static_cast<unsigned>(std::bit_width(index >> kLog2First));
    const std::uint64_t base = k == 0 ? 0 : kFirst << (k - 1);
    return extents_[k].load(std::memory_order_acquire)[index - base];
  }

 private:
  static constexpr unsigned kLog2First = 16;
  static constexpr std::uint64_t kFirst = std::uint64_t{1} << kLog2First;
  static constexpr unsigned kExtents = 32;

  std::atomic<T*> extents_[kExtents]{};
  Mapped owners_[kExtents];
  std::atomic<std::uint64_t> capacity_{0};
};

}  // namespace aprime::os
