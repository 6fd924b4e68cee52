#include "tests/stress/device_actor.hpp"

#include <algorithm>
#include <utility>

namespace aprime::stress {

void DeviceActor::run() {
  std::uint64_t done = 0;
  for (std::uint64_t n = 0; world_.go_on(done); ++n) {
    world_.take_turn(n, 150);
    if (random_.one_in(12)) {
      await(0);
      done = overwrite_something();
    } else {
      done = launch_something();
      await(random_.below(kLaunchesMax));
    }
  }
  await(0);
}

std::uint64_t DeviceActor::launch_something() {
  const View& view = world_.views()[random_.below(world_.views().size())];
  const ByteRange all = view.range(view.first_word, view.words);
  Given readable{&view, all};
  Given writable{&view, all};
  Way way = Way::grid;
  if (random_.one_in(6)) {
    way = Way::on_demand;
    if (random_.one_in(2)) readable.range = writable.range = some(view, 8);
  } else if (!world_.hardware_paged(device_) || random_.one_in(6)) {
    writable.range = some(view, 4);
    readable.range = some(view, 3);
    // A task has its leases pinned on every device: never the whole mapping.
    if (random_.one_in(3)) way = Way::task;
  }
  const auto began = Journal::Clock::now();
  Launched launched = launch(way, readable, writable);
  queued_.push_back({std::move(launched.completion), writable.part(), began});
  return launched.operations;
}

/// Waits until no more than `most` launches are under way.
void DeviceActor::await(std::uint64_t most) {
  while (queued_.size() > most) {
    const Queued& oldest = queued_.front();
    oldest.completion.wait();
    world_.journal().note(world_.device_actor(device_), Path::launch, oldest.part.first, oldest.part.words, 0,
                          oldest.began);
    queued_.pop_front();
    ended();
  }
}

/// Up to `most` granules' worth of words, beginning and ending anywhere.
ByteRange DeviceActor::some(const View& view, std::uint64_t most) {
  const std::uint64_t granule = world_.shadow().granule_words();
  const std::uint64_t first = random_.below(random_.one_in(2) ? 6 * granule : view.words);
  const std::uint64_t count = std::min(view.words - first, random_.between(1, most * granule));
  return {ByteOffset{first * 8}, ByteCount{count * 8}};
}

std::uint64_t DeviceActor::overwrite_something() {
  Shadow& shadow = world_.shadow();
  std::uint64_t granule = random_.below(shadow.granules());
  while (granule < shadow.granules() && shadow.overwriter_of(granule) != static_cast<int>(device_)) ++granule;
  if (granule == shadow.granules()) return 0;
  const View& view = world_.views()[0];
  shadow.begin_overwrite(granule);
  overwrite({&view, view.range(granule * shadow.granule_words(), shadow.granule_words())});
  shadow.end_overwrite(granule);
  return shadow.granule_words();
}

}  // namespace aprime::stress
