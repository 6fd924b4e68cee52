#pragma once

#include <cstdint>
#include <deque>

#include "tests/stress/places.hpp"
#include "tests/stress/world.hpp"

namespace aprime::stress {

/// Launches kernels on one device: mostly several one after the other, without a pause between them. What
/// the kernels do is for the classes made of it to say.
class DeviceActor {
 public:
  DeviceActor(World& world, unsigned device, Random random)
      : world_(world), device_(device), random_(random) {}
  virtual ~DeviceActor() = default;
  DeviceActor(const DeviceActor&) = delete;
  DeviceActor& operator=(const DeviceActor&) = delete;

  void run();

 protected:
  static constexpr Grid kGrid{.blocks = {2, 1, 1}, .threads = {World::kLanes / 2, 1, 1}};
  /// So many launches are under way at the most.
  static constexpr unsigned kLaunchesMax = World::kScratchParts;

  enum class Way : std::uint8_t { grid, task, on_demand };
  /// What a launch is given of a mapping.
  struct Given {
    const View* view;
    ByteRange range;

    const Mapping& mapping() const { return *view->mapping; }
    Part part() const { return {view->first_word + range.first.value / 8, range.size.value / 8}; }
  };
  struct Launched {
    Completion completion;
    /// How many operations it does.
    std::uint64_t operations;
  };

  /// `readable` and `writable` are the same where nothing is leased.
  virtual Launched launch(Way way, const Given& readable, const Given& writable) = 0;
  /// The oldest launch has ended well.
  virtual void ended() = 0;
  /// Stores every word of a granule, and waits for it.
  virtual void overwrite(const Given& granule) = 0;

  World& world_;
  const unsigned device_;
  Random random_;

 private:
  struct Queued {
    Completion completion;
    Part part;
    Journal::Clock::time_point began;
  };

  std::uint64_t launch_something();
  void await(std::uint64_t most);
  ByteRange some(const View& view, std::uint64_t most);
  std::uint64_t overwrite_something();

  /// Oldest first.
  std::deque<Queued> queued_;
};

}  // namespace aprime::stress
