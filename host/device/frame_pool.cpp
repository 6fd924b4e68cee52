#include "host/device/frame_pool.hpp"

#include <algorithm>
#include <bit>
#include <cassert>

namespace aprime::device {

namespace {

constexpr unsigned kWordBits = 64;
constexpr unsigned kGranuleBits = 48;

constexpr std::uint64_t pack(FrameOwner owner) noexcept {
  assert(owner.granule.value >> kGranuleBits == 0);
  return std::uint64_t{owner.region} << kGranuleBits | owner.granule.value;
}
constexpr FrameOwner unpack(std::uint64_t packed) noexcept {
  return {static_cast<RegionId>(packed >> kGranuleBits),
          GranuleIndex{packed & ((std::uint64_t{1} << kGranuleBits) - 1)}};
}

// What it costs a lease to have a frame emptied. Only the order matters: to lose a dirty granule takes a copy
// home, to lose a used one probably a copy back.
constexpr std::uint64_t kCostClean = 4;
constexpr std::uint64_t kCostDirty = 16;
constexpr std::uint64_t kCostUsed = 2;

}  // namespace

FramePool::FramePool(FrameCount capacity)
    : capacity_(capacity),
      frames_(capacity.value),
      free_bits_((capacity.value + kWordBits - 1) / kWordBits, ~std::uint64_t{0}),
      free_(capacity.value) {
  // Bits past the end are never free, so no search needs to look where the end is.
  if (const unsigned rest = capacity.value % kWordBits; rest != 0)
    free_bits_.back() = (std::uint64_t{1} << rest) - 1;
}

bool FramePool::is_head(std::uint64_t at) const noexcept { return frames_[at].occupied && head_of(at) == at; }

/// \pre frames_[at].occupied
std::uint64_t FramePool::head_of(std::uint64_t at) const noexcept {
  return at >> frames_[at].log2_count << frames_[at].log2_count;
}

bool FramePool::any_held(std::uint64_t first, std::uint64_t count) const noexcept {
  for (std::uint64_t at = first; at < first + count; ++at) {
    if (frames_[at].pins != 0 || frames_[at].reserved) return true;
  }
  return false;
}

void FramePool::set_free(std::uint64_t at, bool free) noexcept {
  std::uint64_t& word = free_bits_[at / kWordBits];
  const std::uint64_t bit = std::uint64_t{1} << at % kWordBits;
  assert(((word & bit) != 0) != free);
  word ^= bit;
  free_ = free ? free_ + 1 : free_ - 1;
}

/// The first of `count` free frames, aligned to `count`, or kNone.
std::uint64_t FramePool::find_free(std::uint64_t count) noexcept {
  if (free_ < count) return kNone;
  const std::size_t words = free_bits_.size();
  if (count < kWordBits) {
    const std::uint64_t starts = ~std::uint64_t{0} / ((std::uint64_t{1} << count) - 1);
    for (std::size_t i = 0; i < words; ++i) {
      const std::size_t at = (free_hint_ + i) % words;
      std::uint64_t found = free_bits_[at];
      for (unsigned run = 1; run < count; run *= 2) found &= found >> run;
      found &= starts;
      if (found == 0) continue;
      free_hint_ = at;
      return at * kWordBits + static_cast<unsigned>(std::countr_zero(found));
    }
    return kNone;
  }
  const std::size_t step = static_cast<std::size_t>(count / kWordBits);
  for (std::size_t at = 0; at + step <= words; at += step) {
    const auto begin = free_bits_.begin() + static_cast<std::ptrdiff_t>(at);
    const auto all = [](std::uint64_t word) { return word == ~std::uint64_t{0}; };
    if (std::all_of(begin, begin + static_cast<std::ptrdiff_t>(step), all)) return at * kWordBits;
  }
  return kNone;
}

void FramePool::occupy(std::uint64_t first, std::uint64_t count, FrameOwner owner) noexcept {
  const auto log2_count = static_cast<std::uint8_t>(std::countr_zero(count));
  for (std::uint64_t at = first; at < first + count; ++at) {
    Frame& f = frames_[at];
    f.owner = pack(owner);
    f.log2_count = log2_count;
    f.occupied = true;
  }
  frames_[first].used = true;
  frames_[first].dirty_since = 0;
}

FramePool::Claim FramePool::claim(FrameCount count, FrameOwner owner) noexcept {
  assert(std::has_single_bit(count.value));
  const sync::Lock lock(mutex_);
  if (const std::uint64_t first = find_free(count.value); first != kNone) {
    for (std::uint64_t at = first; at < first + count.value; ++at) set_free(at, false);
    occupy(first, count.value, owner);
    return {Claim::Kind::got, FrameIndex{first}, {}};
  }
  const std::uint64_t victim = next_victim(count.value);
  if (victim == kNone) return {Claim::Kind::none_free, {}, {}};
  return {Claim::Kind::evict, FrameIndex{victim}, unpack(frames_[victim].owner)};
}

/// Whether the clock leaves these frames alone this time: somebody holds one, or one was used since the hand
/// last passed, which is forgotten now.
bool FramePool::pass_by(std::uint64_t first, std::uint64_t count) noexcept {
  if (any_held(first, count)) return true;
  bool used = false;
  for (std::uint64_t at = first; at < first + count; ++at) {
    used = used || frames_[at].used;
    frames_[at].used = false;
  }
  return used;
}

/// The hand goes from granule to granule. It stays inside one aligned window of `count` frames until it has
/// named each granule there, so that the window becomes free as a whole, unless one of them is held or used
/// meanwhile. Two sweeps are enough: the first forgets the uses that keep the second from naming something.
std::uint64_t FramePool::next_victim(std::uint64_t count) noexcept {
  const std::uint64_t windows = capacity_.value / count;
  // One more, because the first window may have been half done when the search began.
  for (std::uint64_t tries = windows == 0 ? 0 : 2 * windows + 1; tries > 0; --tries) {
    if (hand_ / count >= windows) hand_ = 0;
    std::uint64_t first = hand_ / count * count;
    std::uint64_t size = count;
    if (frames_[first].occupied && frames_[first].log2_count > std::countr_zero(count)) {
      size = std::uint64_t{1} << frames_[first].log2_count;
      hand_ = first = head_of(first);
    }
    const std::uint64_t end = first + size;
    if (pass_by(first, size)) {
      hand_ = end;
      continue;
    }
    while (hand_ < end && !is_head(hand_)) ++hand_;
    if (hand_ == end) continue;
    const std::uint64_t victim = hand_;
    hand_ += std::uint64_t{1} << frames_[victim].log2_count;
    return victim;
  }
  return kNone;
}

void FramePool::vacate(std::uint64_t first, std::uint64_t count) noexcept {
  assert(is_head(first) && std::uint64_t{1} << frames_[first].log2_count == count);
  for (std::uint64_t at = first; at < first + count; ++at) {
    Frame& f = frames_[at];
    assert(f.pins == 0);
    const bool reserved = f.reserved;
    f = Frame{};
    f.reserved = reserved;
    if (!reserved) set_free(at, true);
  }
}

void FramePool::free(FrameIndex first, FrameCount count) noexcept {
  const sync::Lock lock(mutex_);
  vacate(first.value, count.value);
}

std::uint64_t FramePool::cost_of(std::uint64_t at) const noexcept {
  if (!frames_[at].occupied) return 0;
  const Frame& head = frames_[head_of(at)];
  return (head.dirty_since != 0 ? kCostDirty : kCostClean) + (head.used ? kCostUsed : 0);
}

/// One pass with a sliding window: frames enter it at its end and leave it at its start, `alignment` at a
/// time.
std::uint64_t FramePool::cheapest_run(std::uint64_t count, std::uint64_t alignment) const noexcept {
  std::uint64_t best = kNone;
  std::uint64_t best_cost = kNone;
  std::uint64_t cost = 0;
  std::uint64_t held = 0;
  const auto is_held = [this](std::uint64_t at) APRIME_REQUIRES(mutex_) {
    return std::uint64_t{frames_[at].pins != 0 || frames_[at].reserved};
  };
  std::uint64_t entered = 0;
  for (std::uint64_t first = 0; first + count <= capacity_.value && best_cost != 0; first += alignment) {
    for (; entered < first + count; ++entered) {
      // With an alignment above the count, frames between two windows enter neither.
      if (entered < first) continue;
      cost += cost_of(entered);
      held += is_held(entered);
    }
    const bool cuts_granule = frames_[first].occupied && !is_head(first);
    if (held == 0 && !cuts_granule && cost < best_cost) {
      best = first;
      best_cost = cost;
    }
    for (std::uint64_t at = first; at < std::min(first + alignment, entered); ++at) {
      cost -= cost_of(at);
      held -= is_held(at);
    }
  }
  return best;
}

std::optional<FrameIndex> FramePool::reserve_run(FrameCount count, FrameCount alignment) noexcept {
  assert(count.value != 0 && std::has_single_bit(alignment.value));
  const sync::Lock lock(mutex_);
  const std::uint64_t first = cheapest_run(count.value, alignment.value);
  if (first == kNone) return std::nullopt;
  for (std::uint64_t at = first; at < first + count.value; ++at) {
    frames_[at].reserved = true;
    if (!frames_[at].occupied) set_free(at, false);
  }
  return FrameIndex{first};
}

std::optional<FrameOwner> FramePool::owner_at(FrameIndex frame) const noexcept {
  const sync::Lock lock(mutex_);
  if (!is_head(frame.value)) return std::nullopt;
  return unpack(frames_[frame.value].owner);
}

FrameIndex FramePool::next_owned(FrameIndex from, FrameIndex end) const noexcept {
  const sync::Lock lock(mutex_);
  while (from < end && !is_head(from.value)) ++from.value;
  return from;
}

void FramePool::assign(FrameIndex first, FrameCount count, FrameOwner owner, GranuleCount granules) noexcept {
  assert(std::has_single_bit(count.value) && first.value % count.value == 0);
  const sync::Lock lock(mutex_);
  for (std::uint64_t i = 0; i < granules.value; ++i) {
    const std::uint64_t begin = first.value + i * count.value;
    for (std::uint64_t at = begin; at < begin + count.value; ++at) {
      assert(frames_[at].reserved && !frames_[at].occupied);
    }
    occupy(begin, count.value, {owner.region, owner.granule + GranuleCount{i}});
  }
}

void FramePool::move(FrameIndex from, FrameIndex to, FrameCount count, GranuleCount granules) noexcept {
  const sync::Lock lock(mutex_);
  for (std::uint64_t i = 0; i < granules.value * count.value; i += count.value) {
    const Frame& old = frames_[from.value + i];
    assert(frames_[to.value + i].reserved && !frames_[to.value + i].occupied);
    occupy(to.value + i, count.value, unpack(old.owner));
    frames_[to.value + i].dirty_since = old.dirty_since;
    vacate(from.value + i, count.value);
  }
}

void FramePool::cancel_run(FrameIndex first, FrameCount count) noexcept {
  const sync::Lock lock(mutex_);
  for (std::uint64_t at = first.value; at < first.value + count.value; ++at) {
    if (!frames_[at].reserved) continue;
    frames_[at].reserved = false;
    if (!frames_[at].occupied) set_free(at, true);
  }
}

void FramePool::pin(FrameIndex first, FrameCount count) noexcept {
  const sync::Lock lock(mutex_);
  for (std::uint64_t at = first.value; at < first.value + count.value; ++at) {
    assert(frames_[at].occupied);
    ++frames_[at].pins;
    assert(frames_[at].pins != 0);
  }
}

void FramePool::unpin(FrameIndex first, FrameCount count) noexcept {
  const sync::Lock lock(mutex_);
  for (std::uint64_t at = first.value; at < first.value + count.value; ++at) {
    assert(frames_[at].pins != 0);
    --frames_[at].pins;
  }
}

bool FramePool::is_pinned(FrameIndex first) const noexcept {
  const sync::Lock lock(mutex_);
  return frames_[first.value].pins != 0;
}

void FramePool::touch(FrameIndex first) noexcept {
  const sync::Lock lock(mutex_);
  assert(is_head(first.value));
  frames_[first.value].used = true;
}

void FramePool::set_dirty_since(FrameIndex first, std::uint32_t ms) noexcept {
  const sync::Lock lock(mutex_);
  assert(is_head(first.value));
  frames_[first.value].dirty_since = ms;
}

std::uint64_t FramePool::set_all_dirty_since(FrameIndex first, FrameCount count, std::uint32_t ms) noexcept {
  const sync::Lock lock(mutex_);
  std::uint64_t changed = 0;
  for (std::uint64_t at = first.value; at < first.value + count.value;
       at += std::uint64_t{1} << frames_[at].log2_count) {
    assert(is_head(at));
    if ((frames_[at].dirty_since == 0) == (ms == 0)) continue;
    frames_[at].dirty_since = ms;
    ++changed;
  }
  return changed;
}

std::uint32_t FramePool::dirty_since(FrameIndex first) const noexcept {
  const sync::Lock lock(mutex_);
  assert(is_head(first.value));
  return frames_[first.value].dirty_since;
}

std::uint32_t FramePool::oldest_dirty(std::uint32_t none) const noexcept {
  const sync::Lock lock(mutex_);
  std::uint32_t oldest = none;
  for (const Frame& f : frames_)
    if (f.occupied && f.dirty_since != 0 && static_cast<std::int32_t>(f.dirty_since - oldest) < 0)
      oldest = f.dirty_since;
  return oldest;
}

bool FramePool::has_dirty(RegionId region) const noexcept {
  const sync::Lock lock(mutex_);
  return std::any_of(frames_.begin(), frames_.end(), [region](const Frame& f) {
    return f.occupied && f.dirty_since != 0 && unpack(f.owner).region == region;
  });
}

void FramePool::collect(std::optional<RegionId> region, GranuleRange range, bool dirty_only,
                        std::vector<FrameOwner>& out) const {
  const sync::Lock lock(mutex_);
  for (std::uint64_t at = 0; at < capacity_.value;) {
    const Frame& f = frames_[at];
    at += f.occupied ? std::uint64_t{1} << f.log2_count : 1;
    if (!f.occupied || (dirty_only && f.dirty_since == 0)) continue;
    const FrameOwner owner = unpack(f.owner);
    if (region && owner.region != *region) continue;
    // One comparison that a range up to the last granule there can be does not overflow.
    if (owner.granule.value - range.first.value >= range.count.value) continue;
    out.push_back(owner);
  }
}

FrameCount FramePool::free_count() const noexcept {
  const sync::Lock lock(mutex_);
  return FrameCount{free_};
}

}  // namespace aprime::device
