#pragma once

#include "tests/contract/kernels.hpp"

// Kernels of the contract suite that fault while they run.

namespace aprime::contract {

struct CopyElements {
  APRIME_DEVICE void operator()(device_span<const Byte> from, device_span<Byte> to, std::size_t step) const {
    for (std::size_t i = first_index() * step; i < from.size(); i += index_step() * step)
      to.store(i, from.load(i));
  }
};

struct IncrementElements {
  APRIME_DEVICE void operator()(device_span<unsigned> words) const {
    for (std::size_t i = first_index(); i < words.size(); i += index_step()) words[i] = words[i] + 1;
  }
};

/// Each thread pins one granule after the other.
struct IncrementPinned {
  APRIME_DEVICE void operator()(device_span<unsigned> words, std::size_t per_granule) const {
    for (std::size_t g = first_index(); g * per_granule < words.size(); g += index_step()) {
      std::size_t at = g * per_granule;
      const std::size_t end = at + per_granule < words.size() ? at + per_granule : words.size();
      while (at < end) {
        const PinnedSpan<unsigned> part = words.pin_span(at, end - at);
        for (unsigned& word : part) ++word;
        at += part.size();
      }
    }
  }
};

struct CountInto {
  APRIME_DEVICE void operator()(device_span<unsigned> counters, unsigned rounds) const {
    for (unsigned round = 0; round < rounds; ++round)
      counters.atomic_add((first_index() * 977 + round * 4099) % counters.size(), 1);
  }
};

/// Each of the atomic functions that there are for a 64-bit word, on a word of its own, in one thread.
struct ChangeEach64 {
  APRIME_DEVICE void operator()(device_span<std::uint64_t> words, device_span<std::int64_t> others) const {
    words.atomic_add(0, words.atomic_min(1, 5));
    words.atomic_max(2, words.atomic_and(3, 12));
    words.atomic_or(4, words.atomic_xor(5, 6));
    words.atomic_exchange(6, words.atomic_compare_exchange(7, 10, 17));
    others.atomic_min(8, others.atomic_max(9, 30));
  }
};

struct LoadFrom {
  APRIME_DEVICE void operator()(device_span<const unsigned> words, std::size_t at,
                                LeasedSpan<unsigned> to) const {
    to[0] = words.load(at);
  }
};

/// Each thread a word of its own, from `at` on.
struct StoreInto {
  APRIME_DEVICE void operator()(device_span<unsigned> words, std::size_t at, unsigned value) const {
    words.store(at + first_index(), value);
  }
};

/// Waits until the CPU has stored `go`, then stores `gone` beside it.
struct WaitForHost {
  APRIME_DEVICE void operator()(device_span<unsigned> words, unsigned go, unsigned gone) const {
    while (words.load(0) != go) __nanosleep(1000);
    words.store(1, gone);
  }
};

/// The first block keeps a granule pinned until the threads of the others have stored to each of theirs.
struct PinWhileOthersFault {
  APRIME_DEVICE void operator()(device_span<unsigned> pinned, device_span<unsigned> others,
                                std::size_t per_granule, LeasedSpan<unsigned> ended) const {
    if (blockIdx.x == 0) {
      if (threadIdx.x != 0) return;
      const PinnedSpan<unsigned> part = pinned.pin_span(0, 1);
      while (atomicAdd(&ended[0], 0) != (gridDim.x - 1) * blockDim.x) __nanosleep(1000);
      part[0] = 1;
      return;
    }
    const std::size_t own = first_index() - blockDim.x;
    for (std::size_t at = own * per_granule; at < others.size();
         at += (index_step() - blockDim.x) * per_granule)
      others.store(at, 1);
    atomicAdd(&ended[0], 1);
  }
};

/// In each round a warp's lanes change granules of their own: add to the first and the last word, and store
/// to one of theirs.
struct ChangeScattered {
  APRIME_DEVICE void operator()(device_span<unsigned> words, std::size_t per_granule, unsigned rounds) const {
    const std::size_t granules = words.size() / per_granule;
    for (unsigned round = 0; round < rounds; ++round) {
      const std::size_t at = (first_index() + round * 7) % granules * per_granule;
      words.atomic_add(at, 1);
      words.store(at + 1 + first_index(), round + 1);
      words.with_pinned(at + per_granule - 2, 9,
                        [](unsigned* last, std::size_t size) { atomicAdd(&last[size - 1], 1); });
    }
  }
};

/// A warp for each granule: adds up the words of its elements.
struct AddGranules {
  APRIME_DEVICE void operator()(device_span<const unsigned> words, std::size_t per_granule,
                                LeasedSpan<unsigned long long> sum) const {
    unsigned long long own = 0;
    for (std::size_t at = first_index() / warp_lanes * per_granule; at < words.size();
         at += index_step() / warp_lanes * per_granule) {
      const PinnedSpan<const unsigned> granule = words.pin_span(at, per_granule);
      for (std::size_t i = threadIdx.x % warp_lanes; i < granule.size(); i += warp_lanes) own += granule[i];
    }
    atomicAdd(&sum[0], own);
  }
};

/// More than a device thread loads at once. Of one write all words agree.
struct alignas(32) Numbered {
  std::uint64_t words[4];
};

/// Loads the first element of each granule in turn, until that of the first one is `last`; then stores how
/// often it saw half of a write.
struct WatchNumbers {
  APRIME_DEVICE void operator()(device_span<const Numbered> all, std::size_t per_granule, std::uint64_t last,
                                LeasedSpan<unsigned> torn) const {
    unsigned count = 0;
    for (std::size_t at = 0;; at = at + per_granule < all.size() ? at + per_granule : 0) {
      const Numbered seen = all.load(at);
      for (const std::uint64_t word : seen.words) count += word != seen.words[0] ? 1 : 0;
      if (at == 0 && seen.words[0] == last) break;
    }
    torn[0] = count;
  }
};

/// Of every 512th element, into the last.
struct SumByIterator {
  APRIME_DEVICE void operator()(device_span<unsigned> words) const {
    unsigned sum = 0;
    for (auto it = words.begin(); it != words.end(); it += 512) sum += *it;
    words.end()[-1] = sum;
  }
};

/// By one thread; makes each value one more, too.
struct ReverseByIterator {
  APRIME_DEVICE void operator()(device_span<unsigned> words) const {
    auto front = words.begin();
    for (auto back = words.end() - 1; front < back; ++front, --back) {
      swap(*front, *back);
      *front += 1;
      ++*back;
    }
  }
};

}  // namespace aprime::contract
