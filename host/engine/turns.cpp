#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cstdint>
#include <exception>
#include <thread>
#include <utility>

#include "host/engine/coherent_file.hpp"
#include "host/os/quiet_thread.hpp"

namespace aprime::engine {

/// A range that two threads pin part by part, each the next one that nobody has begun.
struct CoherentFile::Turns {
  const GranuleRange range;
  const GranuleCount part;
  /// How many granules, from the first on, have been begun; more than there are when all have.
  std::atomic<std::uint64_t> begun{0};
  /// One of the threads could not have a granule: no further part is begun.
  std::atomic<bool> is_over{false};
};

// Pins are taken in ascending order by who waits for the next one (DeviceLeases), and two threads know no
// order. So these wait for nobody's lease, and what they have got behind the first granule that they could
// not have is let go before anybody waits for that one.
GranuleCount CoherentFile::pin_by_turns(GranuleRange range, const Demand& demand) noexcept {
  assert(demand.pin && demand.requester.is_device());
  const ByteCount at_once = regions_[demand.requester.device_number()]->copied_at_once();
  if (at_once <= device::kCopiedAtOnceMin || granule_.bytes_of(range.count) <= at_once)
    return GranuleCount{0};
  Demand without_waiting = demand;
  without_waiting.patience = Patience::skip;
  // Half of a run each: who waits for one of the granules waits for no more bytes than with one thread.
  Turns turns{range, GranuleCount{std::max<std::uint64_t>(1, at_once.value / 2 / granule_.bytes().value)}};
  std::array<GranuleRange, 2> missing{};
  try {
    std::thread other = os::start_quiet_thread([&] { missing[1] = take_turns(turns, without_waiting); });
    missing[0] = take_turns(turns, without_waiting);
    other.join();
  } catch (const std::exception&) {
    return GranuleCount{0};  // no thread to be had, and nothing begun
  }
  // Who stops behind the other has begun the last part of all.
  const GranuleIndex end = range.first + GranuleCount{std::min(turns.begun.load(), range.count.value)};
  for (GranuleRange& m : missing) m.first = std::min(m.first, end);
  if (missing[1].first < missing[0].first) std::swap(missing[0], missing[1]);
  unpin({missing[0].end(), missing[1].first - missing[0].end()}, demand.requester);
  return missing[0].first - range.first;
}

/// Pins parts until there are none left, or a granule cannot be had. Returns what is missing of the last one:
/// nothing, at the end of the range, if it has all.
GranuleRange CoherentFile::take_turns(Turns& turns, const Demand& demand) noexcept {
  while (!turns.is_over.load()) {
    const GranuleCount at{turns.begun.fetch_add(turns.part.value)};
    if (at.value >= turns.range.count.value) break;
    const GranuleCount count = std::min(turns.part, turns.range.count - at);
    const GranuleIndex first = turns.range.first + at;
    const Progress p = perform_counted({first, count}, demand);
    if (p.status.is_ok()) continue;
    turns.is_over.store(true);
    return {first + p.done, count - p.done};
  }
  return {turns.range.end(), GranuleCount{0}};
}

}  // namespace aprime::engine
