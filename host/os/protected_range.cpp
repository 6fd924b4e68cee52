#include "host/os/protected_range.hpp"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <shared_mutex>
#include <thread>
#include <utility>

#include "host/os/file.hpp"
#include "host/os/syscalls.hpp"

namespace aprime::os {
namespace {

constexpr std::uint64_t kPerWord = 32;
constexpr std::uint64_t kLowBits = 0x5555'5555'5555'5555u;
/// What one over-protection merges at least, if the range has as many: enough that its cost (microseconds,
/// and the spurious faults) is shared by a hundred changes, little enough that most of the range keeps its
/// rights.
constexpr std::uint64_t kAreasPerOverProtection = 256;
/// A range this small is left alone: there is nothing to gain.
constexpr std::uint64_t kFewAreas = 16;

// Process-wide, because the limit is.
constinit std::atomic<std::uint64_t> all_areas{0};
constinit std::atomic<std::uint64_t> all_ranges{0};
constinit std::atomic<std::uint64_t> all_share{0};

std::uint64_t read_max_map_count() noexcept {
  const Descriptor fd(sys::open("/proc/sys/vm/max_map_count", O_RDONLY));
  if (!fd) return kMemoryAreasUsual;
  char text[32];
  const ssize_t n = sys::pread(fd.get(), text, sizeof text, 0);
  std::uint64_t value = 0;
  if (n <= 0 || std::from_chars(text, text + n, value).ec != std::errc{}) return kMemoryAreasUsual;
  return value;
}

int native(Protection p) noexcept {
  switch (p) {
    case Protection::none: return PROT_NONE;
    case Protection::read: return PROT_READ;
    case Protection::read_write: break;
  }
  return PROT_READ | PROT_WRITE;
}

/// Neighbours within a word that differ.
std::uint64_t boundaries_in(std::uint64_t word) noexcept {
  const std::uint64_t differing = word ^ (word >> 2);
  constexpr std::uint64_t kPairs =
      kLowBits >> 2;  // 31 pairs: the last granule has its neighbour in the next word
  return static_cast<std::uint64_t>(std::popcount((differing | (differing >> 1)) & kPairs));
}

}  // namespace

ProtectedRange::ProtectedRange(Mapped memory, ByteCount granule, Protection initial, Protection ceiling)
    : memory_(std::move(memory)),
      granule_(granule.value),
      granules_((memory_.size() + granule.value - 1) / granule.value),
      initial_(initial),
      ceiling_(ceiling),
      record_(Mapped::anonymous((granules_ + kPerWord - 1) / kPerWord * sizeof(Word))) {
  assert(granule_ % kPageBytes == 0 && initial <= ceiling && granules_ > 0);
  if (all_share.load() == 0) all_share.store(std::max<std::uint64_t>(read_max_map_count() / 2, 1));
  all_areas.fetch_add(1);
  all_ranges.fetch_add(1);
}

ProtectedRange::~ProtectedRange() {
  all_areas.fetch_sub(areas_.load());
  all_ranges.fetch_sub(1);
}

Status ProtectedRange::set(GranuleIndex first, GranuleCount count, Protection p) noexcept {
  const Span span{first.value, first.value + count.value};
  assert(span.first <= span.end && span.end <= granules_);
  p = std::min(p, ceiling_);
  {
    const std::shared_lock lock(gate_);
    if (all_exactly(span, p)) return {};
    if (!is_crowded(span, p) && protect(span, p)) {
      record(span, p);
      return {};
    }
  }
  return set_crowded(span, p);
}

void ProtectedRange::hold(Held& held) noexcept {
  assert(held.span.end().value <= granules_);
  const std::lock_guard lock(gate_);
  held.at = &held_;
  while (*held.at != nullptr && (*held.at)->span.first.value < held.span.first.value)
    held.at = &(*held.at)->next;
  held.next = std::exchange(*held.at, &held);
  if (held.next != nullptr) held.next->at = &held.next;
}

void ProtectedRange::let_go(Held& held) noexcept {
  const std::lock_guard lock(gate_);
  *held.at = held.next;
  if (held.next != nullptr) held.next->at = held.at;
}

Status ProtectedRange::set_crowded(Span span, Protection p) noexcept {
  const std::lock_guard lock(gate_);
  const bool taking = all_at_least(span, p);
  // Two spans in a row always merge some of more areas than that: either one holds the merged number of them
  // or both together reach around the whole range. Unless they are held: then a whole turn merges none.
  for (std::uint64_t at_turn = areas(); areas() > kFewAreas;) {
    over_protect_next();
    if (protect(span, p)) {
      record(span, p);
      return {};
    }
    if (hand_ != 0) continue;
    if (areas() >= at_turn) break;
    at_turn = areas();
  }
  if (held_ != nullptr && take_around_held({0, granules_}) && protect(span, p)) {
    record(span, p);
    return {};
  }
  // Hardly an area is left to merge, and still none to be had: others use them all.
  over_protect_all();
  if (taking) return {};
  if (protect(span, p)) {
    record(span, p);
    return {};
  }
  const int error = errno;
  // A refused mprotect may have granted part of the span.
  over_protect_all();
  return {Errc::resources, error, {}};
}

void ProtectedRange::over_protect_next() noexcept {
  // Whole words, so that the walk is quick; those with one area only are not worth their rights.
  const std::uint64_t start = hand_;
  std::uint64_t end = start;
  std::uint64_t merged = 0;
  std::uint64_t first = start;
  while (end < granules_ && merged < kAreasPerOverProtection) {
    const std::uint64_t next = std::min(end + kPerWord, granules_);
    const std::uint64_t found = boundaries({end, std::min(next + 1, granules_)});
    if (merged == 0 && found == 0) first = next;
    merged += found;
    end = next;
  }
  hand_ = end == granules_ ? 0 : end;
  if (merged == 0) return;
  // Cutting the span out may itself need an area that is not to be had.
  if (!take_around_held({first, end}) && held_ == nullptr) over_protect_all();
}

/// Takes all rights from what is not held of the span.
bool ProtectedRange::take_around_held(Span span) noexcept {
  over_protections_.fetch_add(1, std::memory_order_relaxed);
  const auto take = [&](Span part) {
    if (part.first >= part.end) return true;
    if (!protect(part, Protection::none)) return false;
    record(part, Protection::none);
    return true;
  };
  std::uint64_t first = span.first;
  for (const Held* held = held_; held != nullptr && held->span.first.value < span.end; held = held->next) {
    if (!take({first, held->span.first.value})) return false;
    first = std::max(first, held->span.end().value);
  }
  return take({first, span.end});
}

void ProtectedRange::over_protect_all() noexcept {
  over_protections_.fetch_add(1, std::memory_order_relaxed);
  const Span all{0, granules_};
  // Needs no area, so only a kernel that is out of memory for the moment can refuse. A right that has to be
  // taken away cannot be left, and there is nobody who could do anything else about it: wait for memory.
  while (!protect(all, Protection::none)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  record(all, Protection::none);
}

bool ProtectedRange::is_crowded(Span span, Protection p) const noexcept {
  const std::uint64_t share = all_share.load(std::memory_order_relaxed);
  const std::uint64_t total = all_areas.load(std::memory_order_relaxed);
  if (total < share) return false;
  // A range that has less than its part may still grow, at the cost of those that have more, which shrink at
  // their next change; but not without end, because they may not change for long.
  const std::uint64_t mine = areas();
  const std::uint64_t part =
      total < share + share / 2 ? share / all_ranges.load(std::memory_order_relaxed) : 0;
  if (mine <= std::max(part, kFewAreas)) return false;
  const Span around{span.first - (span.first > 0 ? 1 : 0), std::min(span.end + 1, granules_)};
  const std::uint64_t after = (around.first < span.first && recorded(around.first) != p ? 1u : 0u) +
                              (around.end > span.end && recorded(span.end) != p ? 1u : 0u);
  return after > boundaries(around);
}

bool ProtectedRange::protect(Span span, Protection p) noexcept {
  const std::uint64_t begin = span.first * granule_;
  const std::uint64_t end = std::min<std::uint64_t>(span.end * granule_, memory_.size());
  return sys::mprotect(memory_.data() + begin, end - begin, native(p)) == 0;
}

Protection ProtectedRange::recorded(std::uint64_t granule) const noexcept {
  const auto* words = reinterpret_cast<const Word*>(record_.data());
  const std::uint64_t word = words[granule / kPerWord].load(std::memory_order_relaxed);
  const std::uint64_t code = (word >> (granule % kPerWord * 2)) & 3;
  return static_cast<Protection>(code ^ static_cast<std::uint64_t>(initial_));
}

bool ProtectedRange::all_exactly(Span span, Protection p) const noexcept {
  return span.first == span.end || (recorded(span.first) == p && boundaries(span) == 0);
}

bool ProtectedRange::all_at_least(Span span, Protection p) const noexcept {
  for (std::uint64_t g = span.first; g < span.end; ++g) {
    if (recorded(g) < p) return false;
  }
  return true;
}

std::uint64_t ProtectedRange::boundaries(Span span) const noexcept {
  const auto* words = reinterpret_cast<const Word*>(record_.data());
  std::uint64_t n = 0;
  for (std::uint64_t g = span.first; g + 1 < span.end;) {
    if (g % kPerWord == 0 && g + kPerWord < span.end) {
      n += boundaries_in(words[g / kPerWord].load(std::memory_order_relaxed));
      n += recorded(g + kPerWord - 1) != recorded(g + kPerWord) ? 1 : 0;
      g += kPerWord;
    } else {
      n += recorded(g) != recorded(g + 1) ? 1 : 0;
      ++g;
    }
  }
  return n;
}

void ProtectedRange::record(Span span, Protection p) noexcept {
  const Span around{span.first - (span.first > 0 ? 1 : 0), std::min(span.end + 1, granules_)};
  const std::lock_guard lock(record_mutex_);
  const std::uint64_t before = boundaries(around);
  fill(span, p);
  const std::uint64_t after = (around.first < span.first && recorded(around.first) != p ? 1u : 0u) +
                              (around.end > span.end && recorded(span.end) != p ? 1u : 0u);
  if (before == after) return;
  // Unsigned arithmetic wraps, so a difference below zero is taken off.
  areas_.fetch_add(after - before, std::memory_order_relaxed);
  all_areas.fetch_add(after - before, std::memory_order_relaxed);
}

void ProtectedRange::fill(Span span, Protection p) noexcept {
  auto* words = reinterpret_cast<Word*>(record_.data());
  const std::uint64_t code = static_cast<std::uint64_t>(p) ^ static_cast<std::uint64_t>(initial_);
  const std::uint64_t pattern = code * kLowBits;
  for (std::uint64_t g = span.first; g < span.end;) {
    const std::uint64_t from = g % kPerWord;
    const std::uint64_t to = std::min(kPerWord, from + (span.end - g));
    const std::uint64_t below_to = to == kPerWord ? ~std::uint64_t{0} : (std::uint64_t{1} << (to * 2)) - 1;
    const std::uint64_t mask = below_to & ~((std::uint64_t{1} << (from * 2)) - 1);
    Word& word = words[g / kPerWord];
    const std::uint64_t old = word.load(std::memory_order_relaxed);
    const std::uint64_t value = (old & ~mask) | (pattern & mask);
    // Spares the memory of words that never differed from the initial protection.
    if (value != old) word.store(value, std::memory_order_relaxed);
    g += to - from;
  }
}

}  // namespace aprime::os
