#include "tests/explorer/weak_memory.hpp"

#include <algorithm>
#include <new>
#include <string>

#include "tests/explorer/explorer.hpp"

namespace aprime::explored {

namespace {

/// Of so many loads that may give an old value one does.
constexpr unsigned kLoadsForAnOldOne = 4;

}  // namespace

void WeakMemory::begin_run(bool is_weak) noexcept {
  is_weak_ = is_weak;
  ++run_;
  messages_ = 0;
  threads_ = {};
  for (std::size_t t = 0; t < kThreadsMax; ++t) threads_[t].knows.of[t] = 1;
  words_.clear();
  places_.clear();
  tracked_.clear();
}

void WeakMemory::pass_time() noexcept { self().slept_at = messages_; }

void WeakMemory::track(const char* name, std::span<const std::byte> bytes) {
  const std::size_t count = bytes.size() / kWord;
  const std::size_t i = tracked_.size();
  if (i == shadows_.size()) shadows_.emplace_back();
  if (shadows_[i].count != count) {
    // Zeros are cells of no run.
    shadows_[i] = {count, decltype(Shadow::cells)(std::calloc(count, sizeof(Cell)))};
    if (shadows_[i].cells == nullptr) throw std::bad_alloc();
  }
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data());
  tracked_.push_back({name, begin, begin + bytes.size(), static_cast<Cell*>(shadows_[i].cells.get())});
}

void WeakMemory::watch(std::span<const std::byte> bytes) {
  for (std::size_t at = 0; at < bytes.size(); at += kWord) word_at(&bytes[at], kWord);
}

std::uint64_t WeakMemory::newest_bits(const void* at, std::size_t bytes) noexcept {
  std::uint64_t bits = 0;
  std::memcpy(&bits, at, bytes);
  return bits;
}

std::uint64_t WeakMemory::load_bits(const void* at, std::size_t bytes, Order how, bool races) noexcept {
  if (!Explorer::is_running()) return newest_bits(at, bytes);
  Cell* const cell = cell_at(reinterpret_cast<std::uintptr_t>(at));
  if (!races && cell != nullptr && !knows(cell->store)) fail(at, "an atomic load and a plain store");
  Word& word = word_at(at, bytes);
  finish_plain_store(word, at);
  std::size_t chosen = word.messages.size() - 1;
  if (is_weak_) {
    const std::size_t oldest = oldest_for_self(word, how);
    if (oldest < chosen && explorer_.random() % kLoadsForAnOldOne == 0)
      chosen = oldest + explorer_.random() % (chosen - oldest);
  }
  learn(word.messages[chosen], how);
  note_seen(word, chosen);
  if (!races) word.last_load.of[own_number()] = now().epoch;
  return word.messages[chosen].value;
}

void WeakMemory::load_newest(const void* at, std::size_t bytes, Order how) noexcept {
  if (!Explorer::is_running()) return;
  Cell* const cell = cell_at(reinterpret_cast<std::uintptr_t>(at));
  if (cell != nullptr && !knows(cell->store)) fail(at, "an atomic load and a plain store");
  Word& word = word_at(at, bytes);
  finish_plain_store(word, at);
  learn(word.messages.back(), how);
  note_seen(word, word.messages.size() - 1);
  word.last_load.of[own_number()] = now().epoch;
}

void WeakMemory::store_bits(void* at, std::size_t bytes, std::uint64_t value, Order how,
                            bool exchanges) noexcept {
  if (!Explorer::is_running()) {
    std::memcpy(at, &value, bytes);
    return;
  }
  if (Cell* const cell = cell_at(reinterpret_cast<std::uintptr_t>(at)); cell != nullptr) {
    if (!knows(cell->store)) fail(at, "an atomic store and a plain store");
    for (const Stamp load : cell->loads)
      if (!knows(load)) fail(at, "an atomic store and a plain load");
  }
  Word& word = word_at(at, bytes);
  finish_plain_store(word, at);
  Message message{.value = value, .at = ++messages_};
  if (exchanges) {
    // What comes after it in a sequence of exchanges carries what a release began.
    learn(word.messages.back(), how);
    message.clock = word.messages.back().clock;
  }
  if (releases(how)) message.clock.join(self().knows);
  word.messages.push_back(message);
  note_seen(word, word.messages.size() - 1);
  word.last_store.of[own_number()] = now().epoch;
  if (how == Order::seq_cst) word.strong = word.messages.size() - 1;
  if (releases(how)) ++self().knows.of[own_number()];
  std::memcpy(at, &value, bytes);
}

void WeakMemory::acquire_fence() noexcept {
  if (Explorer::is_running()) self().knows.join(self().has_seen);
}

void WeakMemory::give(const void* place) noexcept {
  if (!Explorer::is_running()) return;
  places_[place].join(self().knows);
  ++self().knows.of[own_number()];
}

void WeakMemory::take(const void* place) noexcept {
  if (!Explorer::is_running()) return;
  if (const auto found = places_.find(place); found != places_.end()) self().knows.join(found->second);
}

void WeakMemory::access(const void* at, std::size_t bytes, bool stores) noexcept {
  if (!Explorer::is_running()) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(at) / kWord * kWord;
  if (tracked_at(begin) == nullptr) return;
  const auto end = reinterpret_cast<std::uintptr_t>(at) + bytes;
  for (std::uintptr_t word_begin = begin; word_begin < end; word_begin += kWord) {
    Cell* const cell = cell_at(word_begin);
    if (cell == nullptr) return;
    const auto* const place = reinterpret_cast<const void*>(word_begin);
    if (!knows(cell->store)) fail(place, stores ? "two plain stores" : "a plain load and a plain store");
    if (stores)
      for (const Stamp load : cell->loads)
        if (!knows(load)) fail(place, "a plain store and a plain load");
    if (cell->has_word) {
      Word& word = words_.find(place)->second;
      if (!knows_all(word.last_store)) fail(place, "a plain access and an atomic store");
      if (stores) {
        if (!knows_all(word.last_load)) fail(place, "a plain store and an atomic load");
        finish_plain_store(word, place);
        word.messages.push_back({.is_to_come = true, .clock = self().knows, .at = ++messages_});
        note_seen(word, word.messages.size() - 1);
      }
    }
    if (stores) {
      cell->store = now();
      cell->loads = {};
    } else if (const auto own = std::find_if(cell->loads.begin(), cell->loads.end(),
                                             [&](Stamp s) { return s.who == own_number(); });
               own != cell->loads.end()) {
      *own = now();
    } else {
      cell->loads[cell->next_load++ % cell->loads.size()] = now();
    }
  }
}

WeakMemory::Thread& WeakMemory::self() noexcept { return threads_[own_number()]; }

std::uint8_t WeakMemory::own_number() const noexcept {
  return static_cast<std::uint8_t>(explorer_.number_of_running());
}

WeakMemory::Stamp WeakMemory::now() noexcept { return {own_number(), self().knows.of[own_number()]}; }

bool WeakMemory::knows_all(const Clock& clock) noexcept {
  for (std::size_t t = 0; t < kThreadsMax; ++t)
    if (clock.of[t] > self().knows.of[t]) return false;
  return true;
}

WeakMemory::Word& WeakMemory::word_at(const void* at, std::size_t bytes) noexcept {
  const auto [found, is_new] = words_.try_emplace(at);
  if (is_new) {
    found->second.messages.push_back({.value = newest_bits(at, bytes)});
    if (Cell* const cell = cell_at(reinterpret_cast<std::uintptr_t>(at)); cell != nullptr)
      cell->has_word = true;
  }
  return found->second;
}

WeakMemory::Cell* WeakMemory::cell_at(std::uintptr_t at) noexcept {
  const Tracked* const tracked = tracked_at(at);
  if (tracked == nullptr) return nullptr;
  Cell& cell = tracked->cells[(at - tracked->begin) / kWord];
  if (cell.run != run_) cell = Cell{.run = run_};
  return &cell;
}

const WeakMemory::Tracked* WeakMemory::tracked_at(std::uintptr_t at) const noexcept {
  for (const Tracked& tracked : tracked_)
    if (at - tracked.begin < tracked.end - tracked.begin) return &tracked;
  return nullptr;
}

/// It has been made by now.
void WeakMemory::finish_plain_store(Word& word, const void* at) noexcept {
  Message& last = word.messages.back();
  if (!last.is_to_come) return;
  last.is_to_come = false;
  last.value = newest_bits(at, kWord);
}

/// What the running thread can still load.
std::size_t WeakMemory::oldest_for_self(const Word& word, Order how) noexcept {
  const Thread& thread = self();
  std::size_t oldest = how == Order::seq_cst ? word.strong : 0;
  for (std::size_t t = 0; t < kThreadsMax; ++t) {
    const std::vector<Seen>& seen = word.seen[t];
    const auto known = std::find_if(seen.rbegin(), seen.rend(),
                                    [&](const Seen& s) { return s.epoch <= thread.knows.of[t]; });
    if (known != seen.rend()) oldest = std::max(oldest, known->message);
  }
  std::size_t current = word.messages.size() - 1;
  while (current > oldest && word.messages[current].at > thread.slept_at) --current;
  return current;
}

void WeakMemory::note_seen(Word& word, std::size_t message) noexcept {
  std::vector<Seen>& seen = word.seen[own_number()];
  const std::uint32_t epoch = now().epoch;
  if (!seen.empty() && seen.back().message >= message) return;
  if (!seen.empty() && seen.back().epoch == epoch)
    seen.back().message = message;
  else
    seen.push_back({epoch, message});
}

void WeakMemory::learn(const Message& message, Order how) noexcept {
  (acquires(how) ? self().knows : self().has_seen).join(message.clock);
}

void WeakMemory::fail(const void* at, const char* what) noexcept {
  const auto place = reinterpret_cast<std::uintptr_t>(at);
  const Tracked* const tracked = tracked_at(place);
  explorer_.fail(
      std::string(what) + " are not ordered, of " +
      (tracked == nullptr ? "a word" : tracked->name + (" byte " + std::to_string(place - tracked->begin))));
}

}  // namespace aprime::explored
