#include "tests/stress/journal.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace aprime::stress {
namespace {

constexpr std::uint64_t kFieldMask = (std::uint64_t{1} << 28) - 1;

std::uint64_t nanoseconds(Journal::Clock::duration d) noexcept {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(d).count());
}

/// Operations that move whole granules, whatever words they were asked for.
bool moves_granules(Path path) noexcept {
  switch (path) {
    case Path::host_load:
    case Path::device_load:
    case Path::map:
    case Path::launch:
    case Path::tail: return false;
    default: return true;
  }
}

}  // namespace

const char* name(Path path) noexcept {
  constexpr std::array<const char*, kPathCount> names{
      "host load",      "host store",   "host add",     "device load",   "device store",  "device add",
      "overwrite",      "read migrate", "read bounce",  "read adaptive", "write migrate", "write bounce",
      "write adaptive", "read direct",  "write direct", "lease out",     "lease in",      "discard",
      "plain read",     "sync",         "prefetch",     "prefetch home", "map",           "launch",
      "tail",           "resize",       "append",       "rename",        "at end"};
  return names[static_cast<std::size_t>(path)];
}

Journal::Journal(unsigned actors, std::pmr::memory_resource* memory)
    : rings_(actors, memory), entries_(actors * kEntries, memory) {}

void Journal::note(unsigned actor, Path path, std::uint64_t word, std::uint64_t words, std::uint64_t value,
                   Clock::time_point began) noexcept {
  const Clock::time_point now = Clock::now();
  const std::uint64_t took = nanoseconds(now - began);
  Ring& ring = rings_[actor];
  const auto at = static_cast<std::size_t>(path);
  ring.counts[at].fetch_add(1, std::memory_order_relaxed);
  if (took > ring.longest_ns[at].load(std::memory_order_relaxed))
    ring.longest_ns[at].store(took, std::memory_order_relaxed);
  Entry& entry = entries_[actor * kEntries + ring.next.fetch_add(1, std::memory_order_relaxed) % kEntries];
  entry.ended_ns.store(nanoseconds(now.time_since_epoch()), std::memory_order_relaxed);
  entry.what.store(static_cast<std::uint64_t>(path) << 56 | (word & kFieldMask) << 28 | (words & kFieldMask),
                   std::memory_order_relaxed);
  entry.value.store(value, std::memory_order_relaxed);
  entry.took_ns.store(took, std::memory_order_relaxed);
}

std::string Journal::tail(std::uint64_t word, std::uint64_t granule, std::uint64_t granule_words,
                          std::size_t lines) const {
  struct Line {
    std::uint64_t ended_ns;
    std::string text;
  };
  std::vector<Line> found;
  for (std::size_t actor = 0; actor < rings_.size(); ++actor) {
    const Ring& ring = rings_[actor];
    const std::uint64_t used = std::min<std::uint64_t>(ring.next.load(), kEntries);
    for (std::uint64_t i = 0; i < used; ++i) {
      const Entry& entry = entries_[actor * kEntries + i];
      const std::uint64_t what = entry.what.load();
      const auto path = static_cast<Path>(what >> 56);
      const std::uint64_t first = what >> 28 & kFieldMask;
      const std::uint64_t end = first + (what & kFieldMask);
      const bool touches = first <= word && word < end;
      const bool moves = moves_granules(path) && first < granule + granule_words && granule < end;
      if (!touches && !moves) continue;
      found.push_back(
          {entry.ended_ns.load(), fmt::format("actor {:2} {:<14} words {}..{} value {:#x} in {} us{}", actor,
                                              name(path), first, end - 1, entry.value.load(),
                                              entry.took_ns.load() / 1000, touches ? "  <- this word" : "")});
    }
  }
  std::sort(found.begin(), found.end(), [](const Line& a, const Line& b) { return a.ended_ns < b.ended_ns; });
  std::string text;
  const std::size_t skipped = found.size() > lines ? found.size() - lines : 0;
  for (std::size_t i = skipped; i < found.size(); ++i)
    text +=
        fmt::format("  -{:<12.3f} us  {}\n",
                    static_cast<double>(found.back().ended_ns - found[i].ended_ns) / 1000.0, found[i].text);
  return text;
}

std::string Journal::summary(unsigned first_program) const {
  std::string text;
  for (std::size_t path = 0; path < kPathCount; ++path) {
    std::uint64_t n = 0;
    std::uint64_t by_programs = 0;
    std::uint64_t longest = 0;
    for (std::size_t actor = 0; actor < rings_.size(); ++actor) {
      const std::uint64_t count = rings_[actor].counts[path].load();
      n += count;
      if (actor >= first_program) by_programs += count;
      longest = std::max(longest, rings_[actor].longest_ns[path].load());
    }
    if (n != 0)
      text += fmt::format("  {:<14} {:>10}  by programs {:>8}  longest {:.1f} ms\n",
                          name(static_cast<Path>(path)), n, by_programs, static_cast<double>(longest) / 1e6);
  }
  return text;
}

std::uint64_t Journal::count(Path path) const noexcept {
  std::uint64_t n = 0;
  for (const Ring& ring : rings_) n += ring.counts[static_cast<std::size_t>(path)].load();
  return n;
}

}  // namespace aprime::stress
