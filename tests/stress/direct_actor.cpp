#include <algorithm>
#include <atomic>

#include "aprime/device_span.hpp"
#include "aprime/kernel.hpp"
#include "tests/stress/device_actor.hpp"

// Kernels that look at the model and tell it what they do, at each word: for devices whose threads are the
// CPU's.

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
      const Part part = some_granule(world->shadow(), {lease.first, lease.count}, random);
      burst(lane, lease, part, may_store, random);
    }
  }

  /// The same on what was not leased: each burst pins what it works on, and may fault to get it.
  void run(unsigned lane, const device_span<std::uint64_t>& words, std::uint64_t first) const {
    Random random(seed, lane);
    for (unsigned b = 0; b < bursts && !world->shadow().failed(); ++b) {
      const Part part = some_granule(world->shadow(), {first, words.size()}, random);
      if (random.one_in(3)) {
        const PinnedSpan<const std::uint64_t> pinned =
            device_span<const std::uint64_t>(words).pin_span(part.first - first, part.words);
        burst(lane, {const_cast<std::uint64_t*>(pinned.data()), part.first, pinned.size()}, part, false,
              random);
      } else {
        const PinnedSpan<std::uint64_t> pinned = words.pin_span(part.first - first, part.words);
        burst(lane, {pinned.data(), part.first, pinned.size()}, part, true, random);
      }
    }
  }

  void burst(unsigned lane, const LeasedWords& lease, Part part, bool may_store, Random& random) const {
    Shadow& shadow = world->shadow();
    const std::uint8_t me = shadow.lane_owner(device, lane);
    const unsigned actor = world->device_actor(device);
    for (unsigned i = 0; i < ops && !shadow.failed(); ++i) {
      const std::uint64_t word = pick_word(shadow, part.first, part.words, me, random);
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
      const std::uint64_t w = from_edges(cell, i, backwards);
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

class DirectActor final : public DeviceActor {
 public:
  using DeviceActor::DeviceActor;

 private:
  Launched launch(Way way, const Given& readable, const Given& writable) override {
    const Lane lane{&world_, device_, random_.next(), random_.one_in(4) ? 40U : 10U, 16};
    return {start(lane, way, readable, writable), std::uint64_t{World::kLanes} * lane.bursts * lane.ops};
  }

  Completion start(const Lane& lane, Way way, const Given& readable, const Given& writable) {
    const LaunchOptions options{.device = device_, .name = "stress"};
    const std::uint64_t readable_first = readable.part().first;
    const std::uint64_t writable_first = writable.part().first;
    switch (way) {
      case Way::grid:
        return world_.runtime().launch(kGrid, options, GridKernel{lane, readable_first, writable_first},
                                       read(readable.mapping(), readable.range),
                                       read_write(writable.mapping(), writable.range));
      case Way::task:
        return world_.runtime().launch_task(options, Task{lane, readable_first, writable_first},
                                            read(readable.mapping(), readable.range),
                                            read_write(writable.mapping(), writable.range));
      case Way::on_demand: break;
    }
    return world_.runtime().launch(kGrid, options, DemandKernel{lane, writable_first},
                                   demand_read_write(writable.mapping(), writable.range));
  }

  void ended() override {}

  void overwrite(const Given& granule) override {
    world_.runtime()
        .launch(kGrid, LaunchOptions{.device = device_, .name = "overwrite"},
                OverwriteKernel{&world_, device_, granule.part().first},
                write(granule.mapping(), granule.range))
        .wait();
  }
};

}  // namespace

void run_direct_actor(World& world, unsigned device, Random random) {
  DirectActor(world, device, random).run();
}

}  // namespace aprime::stress
