#include <algorithm>
#include <atomic>
#include <deque>
#include <utility>

#include "aprime/device_span.hpp"
#include "aprime/kernel.hpp"
#include "tests/stress/world.hpp"

namespace aprime::stress {
namespace {

/// The words of a lease, numbered as in the file.
struct LeasedWords {
  std::uint64_t* data = nullptr;
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};

/// One lane's work: bursts on single granules of what it may read or also write.
struct Lane {
  World* world;
  unsigned device;
  std::uint64_t seed;
  unsigned bursts;
  unsigned ops;

  void run(unsigned lane, const LeasedWords& readable, const LeasedWords& writable) const {
    Random random(seed, lane);
    for (unsigned b = 0; b < bursts && !world->shadow().failed(); ++b) {
      const bool may_store = writable.count != 0 && (readable.count == 0 || !random.one_in(3));
      const LeasedWords& lease = may_store ? writable : readable;
      const auto [start, room] = some_granule(lease.count, random);
      burst(lane, lease, start, room, may_store, random);
    }
  }

  /// The same on what was not leased: each burst pins what it works on, and may fault to get it.
  void run(unsigned lane, const device_span<std::uint64_t>& words, std::uint64_t first) const {
    Random random(seed, lane);
    for (unsigned b = 0; b < bursts && !world->shadow().failed(); ++b) {
      const auto [start, room] = some_granule(words.size(), random);
      if (random.one_in(3)) {
        const PinnedSpan<const std::uint64_t> part =
            device_span<const std::uint64_t>(words).pin_span(start, room);
        burst(lane, {const_cast<std::uint64_t*>(part.data()), first + start, part.size()}, 0, part.size(),
              false, random);
      } else {
        const PinnedSpan<std::uint64_t> part = words.pin_span(start, room);
        burst(lane, {part.data(), first + start, part.size()}, 0, part.size(), true, random);
      }
    }
  }

  struct Part {
    std::uint64_t start;
    std::uint64_t room;
  };
  /// Half of the bursts go where everybody else goes too.
  Part some_granule(std::uint64_t count, Random& random) const {
    const std::uint64_t granule = world->shadow().granule_words();
    const std::uint64_t within = random.one_in(2) ? std::min(count, 6 * granule) : count;
    const std::uint64_t start = random.below(within) / granule * granule;
    return {start, std::min(granule, count - start)};
  }

  void burst(unsigned lane, const LeasedWords& lease, std::uint64_t start, std::uint64_t room, bool may_store,
             Random& random) const {
    Shadow& shadow = world->shadow();
    const std::uint8_t me = shadow.lane_owner(device, lane);
    const unsigned actor = world->device_actor(device);
    for (unsigned i = 0; i < ops && !shadow.failed(); ++i) {
      const std::uint64_t word = pick_word(shadow, lease.first + start, room, me, random);
      std::uint64_t* at = lease.data + (word - lease.first);
      touch_word(world->board(), at, word, me, actor, true, may_store, random);
      if (i % 16 == 0) read_block(lease, word, actor, random);
    }
  }

  /// A block that the host writes by one call: this thread never sees an older part after a newer one.
  void read_block(const LeasedWords& lease, std::uint64_t word, unsigned actor, Random& random) const {
    Shadow& shadow = world->shadow();
    const Cell& cell = shadow.cell_at(word);
    if (cell.kind != CellKind::block || cell.first < lease.first ||
        cell.first + cell.words > lease.first + lease.count)
      return;
    const bool backwards = random.one_in(2);
    std::uint32_t newest = 0;
    for (std::uint64_t i = 0; i < std::min<std::uint64_t>(cell.words, 64); ++i) {
      // First and last words in turn: they may lie on different pages.
      const std::uint64_t from_edge = i / 2;
      const bool at_end = (i % 2 == 0) == backwards;
      const std::uint64_t w = cell.first + (at_end ? cell.words - 1 - from_edge : from_edge);
      const auto began = Journal::Clock::now();
      const Shadow::Look look = shadow.look(w);
      const std::uint64_t value =
          std::atomic_ref(lease.data[w - lease.first]).load(std::memory_order_acquire);
      world->journal().note(actor, Path::device_load, w, 1, value, began);
      const Shadow::Reader reader{actor, Path::device_load};
      if (!shadow.check(look, w, value, reader)) return;
      if (value == 0) continue;  // says nothing about its time
      const std::uint32_t seq = Shadow::seq_of(cell, value);
      if (!shadow.check_order(w, newest, seq, reader)) return;
      newest = std::max(newest, seq);
    }
  }
};

/// Every thread of the grid is a lane.
struct GridKernel {
  Lane lane;
  std::uint64_t readable_first;
  std::uint64_t writable_first;

  void operator()(LeasedSpan<const std::uint64_t> readable, LeasedSpan<std::uint64_t> writable) const {
    lane.run(blockIdx.x * blockDim.x + threadIdx.x,
             {const_cast<std::uint64_t*>(readable.data()), readable_first, readable.size()},
             {writable.data(), writable_first, writable.size()});
  }
};

/// Every thread of the grid is a lane, and faults.
struct DemandKernel {
  Lane lane;
  std::uint64_t first;

  void operator()(device_span<std::uint64_t> words) const {
    lane.run(blockIdx.x * blockDim.x + threadIdx.x, words, first);
  }
};

/// One thread is all lanes, one after the other.
struct Task {
  Lane lane;
  std::uint64_t readable_first;
  std::uint64_t writable_first;

  void operator()(LeasedSpan<const std::uint64_t> readable, LeasedSpan<std::uint64_t> writable) const {
    for (unsigned l = 0; l < World::kLanes; ++l)
      lane.run(l, {const_cast<std::uint64_t*>(readable.data()), readable_first, readable.size()},
               {writable.data(), writable_first, writable.size()});
  }
};

/// Stores every word of a granule that it was given unfilled.
struct OverwriteKernel {
  World* world;
  unsigned device;
  std::uint64_t first;

  void operator()(LeasedSpan<std::uint64_t> words) const {
    Shadow& shadow = world->shadow();
    const unsigned lane = blockIdx.x * blockDim.x + threadIdx.x;
    const auto began = Journal::Clock::now();
    for (std::uint64_t i = lane; i < words.size(); i += World::kLanes) {
      Cell& cell = shadow.cell_at(first + i);
      const std::uint32_t seq = Shadow::begin_store(cell);
      std::atomic_ref(words[i]).store(Shadow::encode(cell, first + i, seq), std::memory_order_release);
      Shadow::end_store(cell, seq);
    }
    world->journal().note(world->device_actor(device), Path::device_overwrite, first, words.size(), lane,
                          began);
  }
};

/// Launches kernels on one device: mostly several one after the other, without a pause between them.
class DeviceActor {
 public:
  DeviceActor(World& world, unsigned device, Random random)
      : world_(world), device_(device), random_(random) {}

  void run() {
    const Grid grid{.blocks = {2, 1, 1}, .threads = {World::kLanes / 2, 1, 1}};
    std::uint64_t done = 0;
    while (world_.go_on(done)) {
      const View& view = world_.views()[random_.below(world_.views().size())];
      if (random_.one_in(12)) {
        await(0);
        done = overwrite(grid);
        continue;
      }
      const Lane lane{&world_, device_, random_.next(), random_.one_in(4) ? 40U : 10U, 16};
      const bool whole = world_.hardware_paged(device_) && !random_.one_in(6);
      const ByteRange writable = whole ? view.range(view.first_word, view.words) : some(view, 4);
      const ByteRange readable = whole ? writable : some(view, 3);
      const std::uint64_t readable_first = view.first_word + readable.first.value / 8;
      const std::uint64_t writable_first = view.first_word + writable.first.value / 8;
      const LaunchOptions options{.device = device_, .name = "stress"};
      Queued launch{{}, writable_first, writable.size.value / 8, Journal::Clock::now()};
      // A task has its leases pinned on every device: never the whole mapping.
      if (random_.one_in(6)) {
        const ByteRange range = random_.one_in(2) ? view.range(view.first_word, view.words) : some(view, 8);
        launch.completion = world_.runtime().launch(
            grid, options, DemandKernel{lane, view.first_word + range.first.value / 8},
            demand_read_write(*view.mapping, range));
      } else if (!whole && random_.one_in(3)) {
        launch.completion =
            world_.runtime().launch_task(options, Task{lane, readable_first, writable_first},
                                         read(*view.mapping, readable), read_write(*view.mapping, writable));
      } else {
        launch.completion =
            world_.runtime().launch(grid, options, GridKernel{lane, readable_first, writable_first},
                                    read(*view.mapping, readable), read_write(*view.mapping, writable));
      }
      queued_.push_back(std::move(launch));
      await(random_.below(4));
      done = std::uint64_t{World::kLanes} * lane.bursts * lane.ops;
    }
    await(0);
  }

 private:
  struct Queued {
    Completion completion;
    std::uint64_t first_word;
    std::uint64_t words;
    Journal::Clock::time_point began;
  };

  /// Waits until no more than `most` launches are under way.
  void await(std::uint64_t most) {
    while (queued_.size() > most) {
      const Queued& oldest = queued_.front();
      oldest.completion.wait();
      world_.journal().note(world_.device_actor(device_), Path::launch, oldest.first_word, oldest.words, 0,
                            oldest.began);
      queued_.pop_front();
    }
  }

  /// Up to `most` granules' worth of words, beginning and ending anywhere.
  ByteRange some(const View& view, std::uint64_t most) {
    const std::uint64_t granule = world_.shadow().granule_words();
    const std::uint64_t first = random_.below(random_.one_in(2) ? 6 * granule : view.words);
    const std::uint64_t count = std::min(view.words - first, random_.between(1, most * granule));
    return {ByteOffset{first * 8}, ByteCount{count * 8}};
  }

  std::uint64_t overwrite(const Grid& grid) {
    Shadow& shadow = world_.shadow();
    const std::uint64_t granule = random_.below(shadow.granules());
    if (shadow.overwriter_of(granule) != static_cast<int>(device_)) return 0;
    const View& view = world_.views()[0];
    const std::uint64_t first = granule * shadow.granule_words();
    shadow.begin_overwrite(granule);
    world_.runtime()
        .launch(grid, LaunchOptions{.device = device_, .name = "overwrite"},
                OverwriteKernel{&world_, device_, first},
                write(*view.mapping, view.range(first, shadow.granule_words())))
        .wait();
    shadow.end_overwrite(granule);
    return shadow.granule_words();
  }

  World& world_;
  const unsigned device_;
  Random random_;
  /// Oldest first.
  std::deque<Queued> queued_;
};

}  // namespace

void run_device_actor(World& world, unsigned device, Random random) {
  DeviceActor(world, device, random).run();
}

}  // namespace aprime::stress
