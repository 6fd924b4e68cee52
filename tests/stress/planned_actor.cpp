#include <deque>
#include <utility>
#include <vector>

#include "tests/stress/device_actor.hpp"
#include "tests/stress/plan.hpp"

// Kernels that follow a plan: for every device. Plan and report are bytes of one more mapping, which the
// kernel has leased.

namespace aprime::stress {
namespace {

constexpr unsigned kVisitsMax = 8;
static_assert(World::kLanes * kVisitsMax * sizeof(Visit) <= World::kScratchPartMin);

class PlannedActor final : public DeviceActor {
 public:
  PlannedActor(World& world, unsigned device, Random random)
      : DeviceActor(world, device, random), notes_(world.scratch(world.device_actor(device))) {}

 private:
  struct Started {
    Plan plan;
    ByteRange notes;
    Journal::Clock::time_point began;
  };

  Launched launch(Way way, const Given& readable, const Given& writable) override {
    Plan plan(world_, device_);
    const unsigned visits = World::kLanes * (random_.one_in(4) ? kVisitsMax : 3);
    for (unsigned v = 0; v < visits; ++v) {
      const bool stores = !random_.one_in(3);
      plan.add_visit(some_granule(world_.shadow(), (stores ? writable : readable).part(), random_), stores,
                     random_);
    }
    const std::span<const std::byte> bytes = std::as_bytes(plan.visits());
    const ByteRange notes{ByteOffset{launches_++ % kLaunchesMax * world_.scratch_part().value},
                          ByteCount{bytes.size()}};
    notes_.write(notes.first, bytes, any_access());
    started_.push_back({std::move(plan), notes, Journal::Clock::now()});
    return {start(way, readable, writable, notes), visits * Visit::kSteps};
  }

  Completion start(Way way, const Given& readable, const Given& writable, ByteRange notes) {
    const LaunchOptions options{.device = device_, .name = "planned"};
    const FollowLeased follow{readable.part().first, writable.part().first};
    switch (way) {
      case Way::grid:
        return world_.runtime().launch(kGrid, options, follow, read(readable.mapping(), readable.range),
                                       read_write(writable.mapping(), writable.range),
                                       read_write(notes_, notes));
      case Way::task:
        return world_.runtime().launch_task(
            options, FollowTask{follow, World::kLanes}, read(readable.mapping(), readable.range),
            read_write(writable.mapping(), writable.range), read_write(notes_, notes));
      case Way::on_demand: break;
    }
    return world_.runtime().launch(kGrid, options, FollowOnDemand{writable.part().first},
                                   demand_read_write(writable.mapping(), writable.range),
                                   read_write(notes_, notes));
  }

  void ended() override {
    Started& oldest = started_.front();
    std::vector<Visit> seen(oldest.plan.visits().size());
    notes_.read(oldest.notes.first, std::as_writable_bytes(std::span(seen)), any_access());
    oldest.plan.judge(seen, oldest.began);
    started_.pop_front();
  }

  void overwrite(const Given& granule) override {
    Shadow& shadow = world_.shadow();
    const auto [first, count] = granule.part();
    const auto began = Journal::Clock::now();
    std::vector<std::uint64_t> values(count);
    for (std::uint64_t i = 0; i < count; ++i) {
      Cell& cell = shadow.cell_at(first + i);
      values[i] = Shadow::encode(cell, first + i, Shadow::begin_store(cell));
    }
    const ByteRange notes{ByteOffset{0}, granule.range.size};
    notes_.write(notes.first, std::as_bytes(std::span(values)), any_access());
    world_.runtime()
        .launch(kGrid, LaunchOptions{.device = device_, .name = "overwrite"}, OverwriteWords{},
                read(notes_, notes), write(granule.mapping(), granule.range))
        .wait();
    for (std::uint64_t i = 0; i < count; ++i) {
      Cell& cell = shadow.cell_at(first + i);
      Shadow::end_store(cell, Shadow::seq_of(cell, values[i]));
    }
    world_.journal().note(world_.device_actor(device_), Path::device_overwrite, first, count, 0, began);
  }

  HostAccess any_access() { return static_cast<HostAccess>(random_.below(3)); }

  const Mapping& notes_;
  unsigned launches_ = 0;
  /// Oldest first.
  std::deque<Started> started_;
};

}  // namespace

void run_planned_actor(World& world, unsigned device, Random random) {
  PlannedActor(world, device, random).run();
}

}  // namespace aprime::stress
