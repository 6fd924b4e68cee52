#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <type_traits>

#include "aprime/access.hpp"
#include "aprime/detail/page_access.hpp"
#include "aprime/detail/paging.hpp"
#include "aprime/kernel.hpp"

namespace aprime::detail {

/// `word` as CUDA has atomic functions for it: not for `unsigned long`, which is std::uint64_t on Linux.
template <class T>
APRIME_DEVICE T* cuda_word(T* word) noexcept {
  return word;
}
APRIME_DEVICE inline unsigned long long* cuda_word(unsigned long* word) noexcept {
  static_assert(sizeof *word == sizeof(unsigned long long));
  return reinterpret_cast<unsigned long long*>(word);
}
APRIME_DEVICE inline long long* cuda_word(long* word) noexcept {
  static_assert(sizeof *word == sizeof(long long));
  return reinterpret_cast<long long*>(word);
}

}  // namespace aprime::detail

namespace aprime {

template <class T>
class device_span;

/// A part of a `device_span` that stays where it is while this object lives: elements of one granule, by raw
/// pointer. Move-only; one device thread's. What the host wants to take from the thread has to wait for its
/// end, so until then the thread must not wait for the host (a CPU's store) or for another thread. It may pin
/// and use further granules meanwhile, in ascending order if several threads do, as long as device memory
/// holds the granules that all resident threads pin.
template <class T>
class PinnedSpan {
 public:
  APRIME_DEVICE PinnedSpan(PinnedSpan&& other) noexcept
      : data_(other.data_), size_(other.size_), entry_(other.entry_) {
    other.entry_ = nullptr;
  }
  PinnedSpan& operator=(PinnedSpan&&) = delete;
  APRIME_DEVICE ~PinnedSpan() {
    if (entry_ == nullptr) return;
#ifdef __CUDACC__
    const detail::WarpLanes lanes = detail::lanes_at(entry_, detail::Want::unpin);
    lanes.sync();
    if (lanes.leads()) detail::unpin(entry_, lanes.count());
#else
    // A kernel that is stopped ends its threads one by one, and none of them may wait for another.
    detail::unpin(entry_, 1);
#endif
  }

  APRIME_DEVICE T* data() const noexcept { return data_; }
  APRIME_DEVICE std::size_t size() const noexcept { return size_; }
  APRIME_DEVICE T& operator[](std::size_t i) const noexcept { return data_[i]; }
  APRIME_DEVICE T* begin() const noexcept { return data_; }
  APRIME_DEVICE T* end() const noexcept { return data_ + size_; }

 private:
  friend device_span<T>;
  APRIME_DEVICE PinnedSpan(T* data, std::size_t size, std::uint64_t* entry) noexcept
      : data_(data), size_(size), entry_(entry) {}

  T* data_;
  std::size_t size_;
  std::uint64_t* entry_;
};

/// What `device_span<T>::operator[]` and its iterators give: reads by conversion, stores by assignment. What
/// changes or exchanges elements in place reads and stores, one after the other, and is not atomic.
template <class T>
class ElementReference {
 public:
  using Value = std::remove_const_t<T>;

  APRIME_DEVICE ElementReference(const device_span<T>& span, std::size_t i) noexcept : span_(span), i_(i) {}
  ElementReference(const ElementReference&) = default;

  APRIME_DEVICE operator Value() const noexcept { return span_.load(i_); }
  APRIME_DEVICE const ElementReference& operator=(const Value& value) const noexcept {
    span_.store(i_, value);
    return *this;
  }
  APRIME_DEVICE const ElementReference& operator=(const ElementReference& other) const noexcept {
    return *this = Value(other);
  }
  APRIME_DEVICE const ElementReference& operator+=(const Value& value) const noexcept {
    return *this = static_cast<Value>(Value(*this) + value);
  }
  APRIME_DEVICE const ElementReference& operator-=(const Value& value) const noexcept {
    return *this = static_cast<Value>(Value(*this) - value);
  }
  APRIME_DEVICE const ElementReference& operator*=(const Value& value) const noexcept {
    return *this = static_cast<Value>(Value(*this) * value);
  }
  APRIME_DEVICE const ElementReference& operator/=(const Value& value) const noexcept {
    return *this = static_cast<Value>(Value(*this) / value);
  }
  APRIME_DEVICE const ElementReference& operator%=(const Value& value) const noexcept {
    return *this = static_cast<Value>(Value(*this) % value);
  }
  APRIME_DEVICE const ElementReference& operator&=(const Value& value) const noexcept {
    return *this = static_cast<Value>(Value(*this) & value);
  }
  APRIME_DEVICE const ElementReference& operator|=(const Value& value) const noexcept {
    return *this = static_cast<Value>(Value(*this) | value);
  }
  APRIME_DEVICE const ElementReference& operator^=(const Value& value) const noexcept {
    return *this = static_cast<Value>(Value(*this) ^ value);
  }
  APRIME_DEVICE const ElementReference& operator<<=(const Value& value) const noexcept {
    return *this = static_cast<Value>(Value(*this) << value);
  }
  APRIME_DEVICE const ElementReference& operator>>=(const Value& value) const noexcept {
    return *this = static_cast<Value>(Value(*this) >> value);
  }
  APRIME_DEVICE const ElementReference& operator++() const noexcept { return *this += Value(1); }
  APRIME_DEVICE const ElementReference& operator--() const noexcept { return *this -= Value(1); }
  APRIME_DEVICE Value operator++(int) const noexcept {
    const Value before = *this;
    *this = static_cast<Value>(before + Value(1));
    return before;
  }
  APRIME_DEVICE Value operator--(int) const noexcept {
    const Value before = *this;
    *this = static_cast<Value>(before - Value(1));
    return before;
  }
  APRIME_DEVICE friend void swap(const ElementReference& a, const ElementReference& b) noexcept {
    const Value kept = a;
    a = b;
    b = kept;
  }
  APRIME_DEVICE friend void swap(const ElementReference& a, Value& b) noexcept {
    const Value kept = a;
    a = b;
    b = kept;
  }
  APRIME_DEVICE friend void swap(Value& a, const ElementReference& b) noexcept { swap(b, a); }

 private:
  device_span<T> span_;
  std::size_t i_;
};

/// Elements of a file's bytes, any of which a kernel may touch although nothing was leased: what is not on
/// the device is faulted in while the kernel runs, by way of the host. A launch argument made by
/// `demand_read` or `demand_read_write` gives one. The file may be larger than device memory, and the CPU may
/// use the same bytes meanwhile, by pointer too: each side waits for the other's current access only.
///
/// `T` is trivially copyable, and its size a power of two up to 4096 bytes; the range that the launch was
/// given starts at a multiple of it (if not, the kernel ends as by an access beyond the end). A small value:
/// copied into the kernel, used by all threads.
///
/// On software-paged devices each access looks at a page table: `load` before and after it, the others by an
/// atomic operation before and one after it for all lanes of a warp that touch the same granule. `pin_span`
/// and `with_pinned` do that once for many elements. An access beyond the end, and one that cannot be served
/// (I/O error, truncated file), ends the kernel with a `DeviceFaultStatus` that says where. (The granule in
/// which a truncated file ends is served whole; what is stored to it beyond the end is dropped.) Not to be
/// used in a `noexcept` destructor.
template <class T>
class device_span {
 public:
  using element_type = T;
  using value_type = std::remove_const_t<T>;
  class iterator;

  static_assert(std::is_trivially_copyable_v<T>, "elements are moved as bytes");
  static_assert(sizeof(T) <= 4096 && (sizeof(T) & (sizeof(T) - 1)) == 0,
                "an element must not lie in two granules: its size has to be a power of two");

  device_span() = default;
  /// Of the elements from byte `first` of the file. Made by the launch.
  APRIME_DEVICE device_span(const detail::PagedWindow& window, std::uint64_t first, std::size_t size) noexcept
      : window_(window), first_(first), size_(size) {}
  /// To const.
  template <class U>
  requires(std::is_same_v<const U, T>) APRIME_DEVICE device_span(const device_span<U>& other)
  noexcept : device_span(other.window_, other.first_, other.size_) {}

  APRIME_DEVICE std::size_t size() const noexcept { return size_; }
  APRIME_DEVICE bool empty() const noexcept { return size_ == 0; }

  APRIME_DEVICE value_type load(std::size_t i) const noexcept {
    const std::uint64_t at = place_of(i, false);
    if (window_.base != nullptr) return *reinterpret_cast<T*>(window_.base + at);
    return detail::load_validated<value_type>(window_, at, guess_);
  }
  APRIME_DEVICE void store(std::size_t i, const value_type& value) const noexcept
      requires(!std::is_const_v<T>) {
    change(i, [&](T* at) {
      *at = value;
      return 0;
    });
  }
  APRIME_DEVICE ElementReference<T> operator[](std::size_t i) const noexcept { return {*this, i}; }

  // CUDA's atomic functions on one element, where CUDA has them for T; std::uint64_t and std::int64_t are its
  // unsigned long long and long long. Each returns the value before. Atomic among device threads; the CPU
  // sees all of a granule's operations or waits.

  APRIME_DEVICE value_type atomic_add(std::size_t i, value_type value) const noexcept {
    return change(i, [&](T* at) -> value_type { return ::atomicAdd(detail::cuda_word(at), value); });
  }
  APRIME_DEVICE value_type atomic_min(std::size_t i, value_type value) const noexcept {
    return change(i, [&](T* at) -> value_type { return ::atomicMin(detail::cuda_word(at), value); });
  }
  APRIME_DEVICE value_type atomic_max(std::size_t i, value_type value) const noexcept {
    return change(i, [&](T* at) -> value_type { return ::atomicMax(detail::cuda_word(at), value); });
  }
  APRIME_DEVICE value_type atomic_and(std::size_t i, value_type value) const noexcept {
    return change(i, [&](T* at) -> value_type { return ::atomicAnd(detail::cuda_word(at), value); });
  }
  APRIME_DEVICE value_type atomic_or(std::size_t i, value_type value) const noexcept {
    return change(i, [&](T* at) -> value_type { return ::atomicOr(detail::cuda_word(at), value); });
  }
  APRIME_DEVICE value_type atomic_xor(std::size_t i, value_type value) const noexcept {
    return change(i, [&](T* at) -> value_type { return ::atomicXor(detail::cuda_word(at), value); });
  }
  APRIME_DEVICE value_type atomic_exchange(std::size_t i, value_type value) const noexcept {
    return change(i, [&](T* at) -> value_type { return ::atomicExch(detail::cuda_word(at), value); });
  }
  APRIME_DEVICE value_type atomic_compare_exchange(std::size_t i, value_type expected,
                                                   value_type desired) const noexcept {
    return change(i,
                  [&](T* at) -> value_type { return ::atomicCAS(detail::cuda_word(at), expected, desired); });
  }

  /// Elements from `first` on, at most `count` and as many as lie in the same granule. To store to them if T
  /// is not const. \pre count > 0
  ///
  /// For visits that the lanes of a warp make together, to one granule. Where each may go to another, use
  /// `with_pinned`: a GPU's lanes may go on together only, so that those that have their granules keep them
  /// until the last one has its own, and the kernel fails if device memory has no room for all.
  APRIME_DEVICE PinnedSpan<T> pin_span(std::size_t first, std::size_t count) const noexcept {
    const std::uint64_t at = place_of(first, kStores);
    const std::size_t size = size_in_granule(at, first, count);
    if (window_.base != nullptr) return {reinterpret_cast<T*>(window_.base + at), size, nullptr};
    std::uint64_t* const entry = &window_.entries[at >> window_.log2_granule];
    std::byte* const granule =
        detail::pin(window_, at >> window_.log2_granule, kStores,
                    detail::lanes_at(entry, kStores ? detail::Want::write : detail::Want::read));
    return {reinterpret_cast<T*>(granule + (at & granule_mask())), size, entry};
  }
  /// Calls `use(T* elements, std::size_t size)` for the elements that `pin_span` would give; returns `size`.
  /// They stay where they are until `use` returns, in which the thread must wait for nothing: another
  /// granule's fault, a CPU's store, a barrier, the warp's other lanes. \pre count > 0
  template <class Use>
  APRIME_DEVICE std::size_t with_pinned(std::size_t first, std::size_t count, const Use& use) const {
    const std::uint64_t at = place_of(first, kStores);
    const std::size_t size = size_in_granule(at, first, count);
    if (window_.base != nullptr)
      use(reinterpret_cast<T*>(window_.base + at), size);
    else
      detail::use_pinned(window_, at >> window_.log2_granule, kStores, [&](std::byte* granule) {
        use(reinterpret_cast<T*>(granule + (at & granule_mask())), size);
      });
    return size;
  }

  /// A part. \pre first + count <= size()
  APRIME_DEVICE device_span subspan(std::size_t first, std::size_t count) const noexcept {
    return {window_, first_ + first * sizeof(T), count};
  }

  APRIME_DEVICE iterator begin() const noexcept { return {*this, 0}; }
  APRIME_DEVICE iterator end() const noexcept { return {*this, size_}; }

 private:
  template <class U>
  friend class device_span;

  /// Whether a pin is to store.
  static constexpr bool kStores = !std::is_const_v<T>;

  APRIME_DEVICE std::uint64_t granule_mask() const noexcept {
    return (std::uint64_t{1} << window_.log2_granule) - 1;
  }
  /// Byte of the file.
  APRIME_DEVICE std::uint64_t place_of(std::size_t i, bool write) const noexcept {
    if (i >= size_) detail::fail_outside(window_, first_ + i * sizeof(T), write);
    return first_ + i * sizeof(T);
  }
  /// Of `count` elements from `first` on, which is at byte `at`, how many there are in its granule.
  APRIME_DEVICE std::size_t size_in_granule(std::uint64_t at, std::size_t first,
                                            std::size_t count) const noexcept {
    const std::uint64_t to_end = (granule_mask() + 1 - (at & granule_mask())) / sizeof(T);
    const std::uint64_t size = count < size_ - first ? count : size_ - first;
    return size < to_end ? size : to_end;
  }
  template <class Use>
  APRIME_DEVICE auto change(std::size_t i, const Use& use) const noexcept {
    const std::uint64_t at = place_of(i, true);
    if (window_.base != nullptr) return use(reinterpret_cast<T*>(window_.base + at));
    decltype(use(static_cast<T*>(nullptr))) result{};
    detail::use_pinned(window_, at >> window_.log2_granule, true, [&](std::byte* granule) {
      result = use(reinterpret_cast<T*>(granule + (at & granule_mask())));
    });
    return result;
  }

  detail::PagedWindow window_;
  std::uint64_t first_ = 0;
  std::size_t size_ = 0;
  mutable detail::EntryGuess guess_;
};

/// Random access, for algorithms in device code.
template <class T>
class device_span<T>::iterator {
 public:
  using iterator_category = std::random_access_iterator_tag;
  using value_type = std::remove_const_t<T>;
  using difference_type = std::ptrdiff_t;
  using pointer = void;
  using reference = ElementReference<T>;

  iterator() = default;
  APRIME_DEVICE iterator(const device_span& span, std::size_t i) noexcept : span_(span), i_(i) {}

  APRIME_DEVICE reference operator*() const noexcept { return span_[i_]; }
  APRIME_DEVICE reference operator[](difference_type n) const noexcept { return *(*this + n); }
  APRIME_DEVICE iterator& operator++() noexcept { return *this += 1; }
  APRIME_DEVICE iterator& operator--() noexcept { return *this += -1; }
  APRIME_DEVICE iterator operator++(int) noexcept {
    const iterator before = *this;
    ++*this;
    return before;
  }
  APRIME_DEVICE iterator operator--(int) noexcept {
    const iterator before = *this;
    --*this;
    return before;
  }
  APRIME_DEVICE iterator& operator+=(difference_type n) noexcept {
    i_ += static_cast<std::size_t>(n);
    return *this;
  }
  APRIME_DEVICE iterator& operator-=(difference_type n) noexcept { return *this += -n; }
  APRIME_DEVICE friend iterator operator+(iterator i, difference_type n) noexcept { return i += n; }
  APRIME_DEVICE friend iterator operator+(difference_type n, iterator i) noexcept { return i += n; }
  APRIME_DEVICE friend iterator operator-(iterator i, difference_type n) noexcept { return i -= n; }
  APRIME_DEVICE friend difference_type operator-(const iterator& a, const iterator& b) noexcept {
    return static_cast<difference_type>(a.i_ - b.i_);
  }
  APRIME_DEVICE friend bool operator==(const iterator& a, const iterator& b) noexcept { return a.i_ == b.i_; }
  // Not by operator<=>: the standard library compares its result on the CPU only.
  APRIME_DEVICE friend bool operator<(const iterator& a, const iterator& b) noexcept { return a.i_ < b.i_; }
  APRIME_DEVICE friend bool operator>(const iterator& a, const iterator& b) noexcept { return b < a; }
  APRIME_DEVICE friend bool operator<=(const iterator& a, const iterator& b) noexcept { return !(b < a); }
  APRIME_DEVICE friend bool operator>=(const iterator& a, const iterator& b) noexcept { return !(a < b); }

 private:
  device_span span_;
  std::size_t i_ = 0;
};

/// The bytes of a range that a kernel may fault on, before it gives them a type. Converts by itself to
/// `device_span<T>`; without a write right to `device_span<const T>` only.
template <Right right>
class DemandBytes {
 public:
  DemandBytes() = default;
  DemandBytes(const detail::PagedWindow& window, std::uint64_t first, std::size_t size) noexcept
      : window_(window), first_(first), size_(size) {}

  template <class T>
  requires(std::is_const_v<T> || includes_write(right)) APRIME_DEVICE operator device_span<T>()
      const noexcept {
    if (first_ % sizeof(T) != 0) detail::fail_outside(window_, first_, !std::is_const_v<T>);
    return {window_, first_, size_ / sizeof(T)};
  }
  /// In bytes.
  APRIME_DEVICE std::size_t size() const noexcept { return size_; }

 private:
  detail::PagedWindow window_;
  std::uint64_t first_ = 0;
  std::size_t size_ = 0;
};

}  // namespace aprime
