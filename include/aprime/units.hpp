#pragma once

#include <compare>
#include <cstdint>

namespace aprime {

/// An unsigned 64-bit count or index of one kind of thing. Two kinds never mix by accident: a byte offset
/// cannot be passed where a granule index is wanted, and an index and a count of the same thing are different
/// kinds.
template <class Tag>
struct Quantity {
  std::uint64_t value = 0;

  constexpr Quantity() = default;
  constexpr explicit Quantity(std::uint64_t v) noexcept : value(v) {}

  constexpr auto operator<=>(const Quantity&) const = default;
};

/// Offset in bytes from the start of a file.
using ByteOffset = Quantity<struct ByteOffsetTag>;
/// A number of bytes.
using ByteCount = Quantity<struct ByteCountTag>;
/// Position of a granule in a file: byte offset divided by the granule size.
using GranuleIndex = Quantity<struct GranuleIndexTag>;
/// A number of granules.
using GranuleCount = Quantity<struct GranuleCountTag>;
/// Position of a frame in a device's pool.
using FrameIndex = Quantity<struct FrameIndexTag>;
/// A number of frames.
using FrameCount = Quantity<struct FrameCountTag>;

constexpr ByteOffset operator+(ByteOffset at, ByteCount by) noexcept {
  return ByteOffset{at.value + by.value};
}
constexpr ByteCount operator-(ByteOffset last, ByteOffset first) noexcept {
  return ByteCount{last.value - first.value};
}
constexpr ByteCount operator+(ByteCount a, ByteCount b) noexcept { return ByteCount{a.value + b.value}; }
constexpr GranuleCount operator-(GranuleCount a, GranuleCount b) noexcept {
  return GranuleCount{a.value - b.value};
}
constexpr GranuleIndex operator+(GranuleIndex at, GranuleCount by) noexcept {
  return GranuleIndex{at.value + by.value};
}
constexpr GranuleCount operator-(GranuleIndex last, GranuleIndex first) noexcept {
  return GranuleCount{last.value - first.value};
}

/// Half-open range of bytes of a file: [first, first + size).
struct ByteRange {
  ByteOffset first;
  ByteCount size;

  constexpr ByteOffset end() const noexcept { return first + size; }
  constexpr bool empty() const noexcept { return size.value == 0; }
  constexpr bool operator==(const ByteRange&) const = default;
};

/// Half-open range of granules of a file: [first, first + count).
struct GranuleRange {
  GranuleIndex first;
  GranuleCount count;

  constexpr GranuleIndex end() const noexcept { return first + count; }
  constexpr bool empty() const noexcept { return count.value == 0; }
  constexpr bool operator==(const GranuleRange&) const = default;
};

/// Size of a granule: a power of two from 4 KiB to 2 MiB, kept as its binary logarithm so that only powers
/// exist.
class GranuleSize {
 public:
  static constexpr unsigned kLog2Min = 12;
  static constexpr unsigned kLog2Max = 21;

  /// \pre is_valid(bytes)
  static constexpr GranuleSize of(ByteCount bytes) noexcept {
    unsigned log2 = 0;
    while ((std::uint64_t{1} << log2) < bytes.value) ++log2;
    return GranuleSize{log2};
  }
  static constexpr bool is_valid(ByteCount bytes) noexcept {
    return bytes.value >= (std::uint64_t{1} << kLog2Min) && bytes.value <= (std::uint64_t{1} << kLog2Max) &&
           (bytes.value & (bytes.value - 1)) == 0;
  }

  constexpr ByteCount bytes() const noexcept { return ByteCount{std::uint64_t{1} << log2_}; }
  constexpr GranuleIndex index_of(ByteOffset at) const noexcept { return GranuleIndex{at.value >> log2_}; }
  constexpr ByteOffset offset_of(GranuleIndex g) const noexcept { return ByteOffset{g.value << log2_}; }
  constexpr ByteCount bytes_of(GranuleCount n) const noexcept { return ByteCount{n.value << log2_}; }
  constexpr GranuleCount count_for(ByteCount size) const noexcept {
    return GranuleCount{(size.value + bytes().value - 1) >> log2_};
  }
  /// Bytes covered by whole granules.
  constexpr ByteRange bytes_of(GranuleRange r) const noexcept {
    return {offset_of(r.first), bytes_of(r.count)};
  }
  /// Every granule that holds a byte of `r`; empty for an empty range.
  constexpr GranuleRange covering(ByteRange r) const noexcept {
    if (r.empty()) return {index_of(r.first), GranuleCount{0}};
    const GranuleIndex first = index_of(r.first);
    return {first, GranuleCount{((r.end().value - 1) >> log2_) - first.value + 1}};
  }
  constexpr bool operator==(const GranuleSize&) const = default;

 private:
  constexpr explicit GranuleSize(unsigned log2) noexcept : log2_(log2) {}
  unsigned log2_;
};

namespace literals {
constexpr ByteCount operator""_KiB(unsigned long long n) noexcept { return ByteCount{n << 10}; }
constexpr ByteCount operator""_MiB(unsigned long long n) noexcept { return ByteCount{n << 20}; }
constexpr ByteCount operator""_GiB(unsigned long long n) noexcept { return ByteCount{n << 30}; }
}  // namespace literals

}  // namespace aprime
