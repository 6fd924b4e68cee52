#pragma once

#include <cassert>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>

#include "aprime/access.hpp"
#include "aprime/kernel.hpp"
#include "aprime/units.hpp"

namespace aprime {

class Mapping;
namespace engine {
class MappingState;
}

/// Contiguous elements of a leased range, as a kernel sees them: a pointer into device memory and a count of
/// elements. Valid until the launch or lease that it came from ends.
template <class T>
class LeasedSpan {
 public:
  constexpr LeasedSpan() = default;
  APRIME_HOST_DEVICE constexpr LeasedSpan(T* data, std::size_t size) noexcept : data_(data), size_(size) {}

  APRIME_HOST_DEVICE constexpr T* data() const noexcept { return data_; }
  APRIME_HOST_DEVICE constexpr std::size_t size() const noexcept { return size_; }
  APRIME_HOST_DEVICE constexpr bool empty() const noexcept { return size_ == 0; }
  APRIME_HOST_DEVICE constexpr T& operator[](std::size_t i) const noexcept { return data_[i]; }
  APRIME_HOST_DEVICE constexpr T* begin() const noexcept { return data_; }
  APRIME_HOST_DEVICE constexpr T* end() const noexcept { return data_ + size_; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// The bytes of a leased range in device memory, before a kernel gives them a type. Converts by itself to
/// `LeasedSpan<T>`; a read lease converts to `LeasedSpan<const T>` only, so that a store through it does not
/// compile. Bytes that do not fill a whole `T` at the end are left out. \pre The range that was leased starts
/// at a multiple of alignof(T).
template <Right right>
class LeasedBytes {
 public:
  using Byte = std::conditional_t<includes_write(right), std::byte, const std::byte>;

  constexpr LeasedBytes() = default;
  APRIME_HOST_DEVICE constexpr LeasedBytes(Byte* data, std::size_t size) noexcept
      : data_(data), size_(size) {}

  APRIME_HOST_DEVICE constexpr Byte* data() const noexcept { return data_; }
  /// In bytes.
  APRIME_HOST_DEVICE constexpr std::size_t size() const noexcept { return size_; }

  template <class T>
  requires(std::is_trivially_copyable_v<T> &&
           (std::is_const_v<T> || includes_write(right))) APRIME_HOST_DEVICE LeasedSpan<T> as()
  const noexcept {
    assert(reinterpret_cast<std::uintptr_t>(data_) % alignof(T) == 0);
    return {reinterpret_cast<T*>(data_), size_ / sizeof(T)};
  }
  template <class T>
  requires(std::is_trivially_copyable_v<T> &&
           (std::is_const_v<T> || includes_write(right))) APRIME_HOST_DEVICE
  operator LeasedSpan<T>() const noexcept {
    return as<T>();
  }

 private:
  Byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// A range of a mapping and the right that is wanted on it. `range` counts from the start of the mapping. May
/// be kept, and used for several launches; a launch refuses it when the mapping has been closed.
struct LeaseRequest {
  std::weak_ptr<engine::MappingState> mapping;
  ByteRange range;
  Right right;
  /// Not leased: granules come as the kernel touches them.
  bool on_demand = false;
};

/// A launch argument that the kernel receives as `LeasedBytes<right>`.
template <Right right>
struct LeaseArgument {
  LeaseRequest request;
};

/// The whole mapping, or a part of it, for a kernel to read.
LeaseArgument<Right::read> read(const Mapping& mapping);
LeaseArgument<Right::read> read(const Mapping& mapping, ByteRange range);
/// ... to read and store.
LeaseArgument<Right::read_write> read_write(const Mapping& mapping);
LeaseArgument<Right::read_write> read_write(const Mapping& mapping, ByteRange range);
/// ... to store every byte of, without reading it first: whole granules are not filled.
LeaseArgument<Right::write> write(const Mapping& mapping);
LeaseArgument<Right::write> write(const Mapping& mapping, ByteRange range);

/// A launch argument that the kernel receives as `DemandBytes<right>` (device_span.hpp): nothing is moved
/// before the launch, and any part of the range may be faulted in while the kernel runs.
template <Right right>
struct DemandArgument {
  LeaseRequest request;
};

/// The whole mapping, or a part of it, for a kernel to load from by `device_span<const T>`.
DemandArgument<Right::read> demand_read(const Mapping& mapping);
DemandArgument<Right::read> demand_read(const Mapping& mapping, ByteRange range);
/// ... to load from, store to and update atomically by `device_span<T>`. A load alone takes no write right.
DemandArgument<Right::read_write> demand_read_write(const Mapping& mapping);
DemandArgument<Right::read_write> demand_read_write(const Mapping& mapping, ByteRange range);

namespace detail {
struct HostLeaseState;
}

/// Holds the CPU view's right on a range, so that its pointer can be given to a system call (a pointer whose
/// granules a device took meanwhile would make the call fail with EFAULT). While it lives, device accesses
/// that need the right wait; hold it for one call, not for long, and launch nothing on the same range
/// meanwhile. Move-only; the right goes back on destruction. Must not outlive its mapping.
class HostLease {
 public:
  /// Of nothing.
  HostLease() noexcept;
  explicit HostLease(std::unique_ptr<detail::HostLeaseState> state) noexcept;
  HostLease(HostLease&&) noexcept;
  HostLease& operator=(HostLease&&) noexcept;
  ~HostLease();

  /// The leased bytes. Storing through it needs a lease with a write right.
  std::span<std::byte> bytes() const noexcept;

 private:
  std::unique_ptr<detail::HostLeaseState> state_;
};

}  // namespace aprime
