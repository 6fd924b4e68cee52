#pragma once

#include <cstddef>
#include <cstdint>

#include "aprime/detail/device_atomics.hpp"
#include "aprime/device_span.hpp"
#include "aprime/kernel.hpp"
#include "aprime/lease.hpp"
#include "tests/contract/kernels.hpp"

// Kernels that do what a plan says (plan.hpp), in source that every device can compile. They need nothing of
// the CPU's memory.

namespace aprime::stress {

enum class StepKind : std::uint32_t {
  load,
  store,
  add,
  /// Nothing, where the model is told of a store: sabotage.
  lost_store,
};

/// What a device thread does to one word.
struct Step {
  StepKind kind;
  /// Number of the word in the file.
  std::uint32_t word;
  /// What is to be stored. Otherwise, afterwards, what was loaded, or what the word was after the add.
  std::uint64_t value;
};

/// What it does, in this order, to words of one granule.
struct Visit {
  static constexpr std::size_t kSteps = 15;

  /// Its words are among these.
  std::uint64_t first;
  std::uint32_t words;
  /// Whether it needs the right to store.
  std::uint32_t stores;
  Step steps[kSteps];
};
static_assert(sizeof(Visit) == 256);

// A plan that did not arrive whole leads nowhere else: what is left undone the judge will notice.

APRIME_DEVICE inline bool lies_in(const Visit& visit, std::uint64_t first, std::uint64_t count) {
  const std::uint64_t before = visit.first - first;
  return visit.words != 0 && before < count && visit.words <= count - before;
}

/// `words` are `count` ones from `visit.first` on.
APRIME_DEVICE inline void follow(Visit& visit, std::uint64_t* words, std::uint64_t count) {
  for (Step& step : visit.steps) {
    if (step.word - visit.first >= count) return;
    std::uint64_t* const at = words + (step.word - visit.first);
    switch (step.kind) {
      case StepKind::load:
        step.value = detail::DeviceWord<std::uint64_t>(*at).load(detail::order::acquire);
        break;
      case StepKind::store:
        detail::DeviceWord<std::uint64_t>(*at).store(step.value, detail::order::release);
        break;
      case StepKind::add: step.value = 1 + atomicAdd(reinterpret_cast<unsigned long long*>(at), 1ULL); break;
      case StepKind::lost_store: break;
    }
  }
}

/// Every thread of the grid follows the visits of one lane.
struct FollowLeased {
  // Of the first word of each lease.
  std::uint64_t readable_first;
  std::uint64_t writable_first;

  APRIME_DEVICE void operator()(LeasedSpan<const std::uint64_t> readable, LeasedSpan<std::uint64_t> writable,
                                LeasedSpan<Visit> visits) const {
    for (std::size_t v = contract::first_index(); v < visits.size(); v += contract::index_step())
      follow_one(readable, writable, visits[v]);
  }

  APRIME_DEVICE void follow_one(LeasedSpan<const std::uint64_t> readable, LeasedSpan<std::uint64_t> writable,
                                Visit& visit) const {
    if (visit.stores) {
      if (lies_in(visit, writable_first, writable.size()))
        follow(visit, writable.data() + (visit.first - writable_first), visit.words);
    } else if (lies_in(visit, readable_first, readable.size())) {
      follow(visit, const_cast<std::uint64_t*>(readable.data()) + (visit.first - readable_first),
             visit.words);
    }
  }
};

/// The same, of what was not leased: each visit pins its words, and may fault to get them.
struct FollowOnDemand {
  std::uint64_t first;

  APRIME_DEVICE void operator()(device_span<std::uint64_t> words, LeasedSpan<Visit> visits) const {
    for (std::size_t v = contract::first_index(); v < visits.size(); v += contract::index_step()) {
      Visit& visit = visits[v];
      if (!lies_in(visit, first, words.size())) continue;
      const std::uint64_t at = visit.first - first;
      if (visit.stores) {
        const PinnedSpan<std::uint64_t> part = words.pin_span(at, visit.words);
        follow(visit, part.data(), part.size());
      } else {
        const PinnedSpan<const std::uint64_t> part =
            device_span<const std::uint64_t>(words).pin_span(at, visit.words);
        follow(visit, const_cast<std::uint64_t*>(part.data()), part.size());
      }
    }
  }
};

/// As a task: on the CPU one thread is all lanes, on a GPU each has its own.
struct FollowTask {
  FollowLeased leased;
  unsigned lanes;

  APRIME_DEVICE void operator()(LeasedSpan<const std::uint64_t> readable, LeasedSpan<std::uint64_t> writable,
                                LeasedSpan<Visit> visits) const {
    for (Visit& visit : visits) leased.follow_one(readable, writable, visit);
  }
};

/// Stores every word of a granule that it was given unfilled.
struct OverwriteWords {
  APRIME_DEVICE void operator()(LeasedSpan<const std::uint64_t> values,
                                LeasedSpan<std::uint64_t> words) const {
    for (std::size_t i = contract::first_index(); i < words.size(); i += contract::index_step())
      detail::DeviceWord<std::uint64_t>(words[i]).store(values[i], detail::order::release);
  }
};

}  // namespace aprime::stress
