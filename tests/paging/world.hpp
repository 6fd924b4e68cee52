#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "aprime/device_span.hpp"
#include "host/device/demand_region.hpp"
#include "tests/explorer/explorer.hpp"
#include "tests/paging/plain_frames.hpp"
#include "tests/paging/warp.hpp"

namespace aprime::explored {

/// A mistake that the engine or device code could make. For tests of the tests.
enum class Flaw : std::uint8_t {
  none,
  copies_before_revoking,  ///< what goes home
  // Of device code, by what it leaves in a word.
  calls_pinned_taken,  ///< in its answers
  loses_a_fault,
  forgets_pins,
  keeps_pending,   ///< of a fault that was answered
  keeps_own_mark,  ///< of a right that came before it was asked for
  keeps_read,      ///< of a copy that is taken
  // Of device code, in what is ordered with what.
  releases_nothing,
  acquires_nothing,
  has_no_fences,
  lets_lanes_pass,  ///< where they are to meet
};

/// A file of a few granules on a device that has frames for some of them: the library's device code and its
/// Paging and DemandRegion, run by explored threads, with the shortest engine that works: a lock and a right
/// for each granule.
///
/// Of a granule the first word never changes, and tells it from others; the second counts up: whoever reads
/// it sees every addition that has ended before he began, and none that begins after he has ended. (Where
/// memory is weak, those that have ended before something that he knows of.)
class World final : private device::FaultHandler, private device::HomePort, private device::PagingSource {
 public:
  struct Options {
    std::size_t granules = 2;
    std::size_t frames = 2;
    /// While the kernel runs.
    bool has_pager = true;
    unsigned copiers = 0;
    /// Of each of its warps.
    unsigned pager_lanes = 1;
    /// A fault of this granule cannot be served.
    std::uint64_t bad_granule = ~std::uint64_t{0};
    Flaw flaw = Flaw::none;
  };
  using Span = device_span<std::uint64_t>;
  using ConstSpan = device_span<const std::uint64_t>;

  /// In a run that is set up.
  explicit World(const Options& options);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  /// A thread of the kernel, in a warp of its own.
  void kernel(std::function<void(World&)> body);
  /// Threads of the kernel that are lanes of one warp.
  void warp(std::vector<std::function<void(World&)>> lanes);
  /// A thread of the host that uses the file meanwhile.
  void host(std::function<void(World&)> body);
  /// After a run: what is wrong.
  std::string check();

  // For the kernel's threads.

  Span span() const noexcept { return {window_, 0, kWords * options_.granules}; }
  void add(std::uint64_t g) noexcept;
  /// By a span over the granule, with a pause in the middle.
  void add_pinned(std::uint64_t g) noexcept;
  /// By loads. `span`: the thread's own, which remembers what it looked at.
  void read(const Span& span, std::uint64_t g) noexcept;
  /// By a pin, under which nothing changes.
  void read_pinned(std::uint64_t g) noexcept;

  /// As a thread does that found no right to load.
  void ask_for(std::uint64_t g) noexcept;
  /// Until a thread has a pin of its own.
  void wait_for_pin() noexcept;

  // For the host's.

  void host_add(std::uint64_t g) noexcept;
  void host_read(std::uint64_t g) noexcept;
  /// Leaves the granule with the device.
  void host_add_through_copy(std::uint64_t g) noexcept;
  void evict(std::uint64_t g) noexcept;
  /// Gives it to the device, to be read, before a thread asks for it.
  void prefetch(std::uint64_t g) noexcept;

  static constexpr std::uint64_t tag(std::uint64_t g) noexcept { return 0xa0 + g; }
  /// The world of the run under way.
  static World*& current() noexcept { return current_; }
  void kernel_thread_has_ended() noexcept;
  /// What device code that makes `after` of `before` leaves in a word.
  std::uint64_t stored(const std::uint64_t* word, std::uint64_t before, std::uint64_t after) noexcept;
  Order ordered(Order how) const noexcept;
  bool lanes_meet() const noexcept { return options_.flaw != Flaw::lets_lanes_pass; }
  bool is_fenced() const noexcept { return options_.flaw != Flaw::has_no_fences; }

 private:
  static constexpr std::size_t kWords = PlainFrames::kBytes / sizeof(std::uint64_t);
  using Granule = std::array<std::uint64_t, 2>;
  /// What the directory knows of a granule.
  struct Known {
    bool is_busy = false;
    bool may_load = false;
    bool may_store = false;
  };

  /// Memory that comes and goes with the world.
  class Memory final : public device::PagingMemory {
   public:
    std::byte* shared(std::size_t bytes) override { return device(bytes); }
    std::byte* device(std::size_t bytes) override {
      return parts_.emplace_back(os::Mapped::anonymous(bytes, true)).data();
    }
    void free(std::byte*) noexcept override {}
    Status clear(std::byte*) noexcept override { return {}; }
    Status upload(std::byte* to, std::span<const std::byte> from) noexcept override;
    void track_in(WeakMemory& memory);

   private:
    std::list<os::Mapped> parts_;
  };

  /// The region, with no more of its page table than there are granules.
  class FewEntries final : public device::PagedRegion {
   public:
    FewEntries(device::PagedRegion& region, std::size_t granules) : region_(region), granules_(granules) {}
    void prepare_session() override { region_.prepare_session(); }
    void enter_session() noexcept override { region_.enter_session(); }
    void cancel_session() noexcept override { region_.cancel_session(); }
    void leave_session() noexcept override { region_.leave_session(); }
    Status serve(GranuleIndex g, bool write) noexcept override { return region_.serve(g, write); }
    std::span<std::uint64_t> table() const noexcept override { return region_.table().first(granules_); }
    device::RegionId id() const noexcept override { return region_.id(); }

   private:
    device::PagedRegion& region_;
    const std::size_t granules_;
  };

  device::Paging& paging() override { return *paging_; }
  device::PagingMemory& paging_memory() noexcept override { return memory_; }
  Status on_device_fault(device::Region&, GranuleIndex g, bool write) noexcept override;
  Status read(ByteOffset at, std::span<std::byte> into) noexcept override;
  Status write(ByteOffset at, std::span<const std::byte> from) noexcept override;
  std::span<const std::byte> alias() noexcept override { return {}; }

  void launch() noexcept;
  void add_kernel_thread(std::function<void(World&)> body, Warp* warp, unsigned lane);
  /// A lane of a warp of the pager other than the very first, which `run_pager` is.
  void add_pager_thread(unsigned block, unsigned lane);
  void be_pager(const detail::PagingPort* port, unsigned block, unsigned lane) noexcept;
  Status run_pager(const detail::PagingPort* port) noexcept;

  void begin_use(std::uint64_t g) noexcept;
  void end_use(std::uint64_t g) noexcept;
  Status give(std::uint64_t g, bool write) noexcept;
  void take_frame(std::uint64_t g) noexcept;
  /// With all rights, or the one to store. The granule is in use.
  void bring_home(std::uint64_t g, bool keeps_copy) noexcept;

  Granule& words_at(std::byte* at) const noexcept { return *reinterpret_cast<Granule*>(at); }
  Granule& home_of(std::uint64_t g) noexcept { return words_at(&home_[g * PlainFrames::kBytes]); }
  /// The calling thread has made one.
  void note_addition(std::uint64_t g, WeakMemory::Stamp when) noexcept;
  WeakMemory::Stamp when_released() noexcept;
  /// Of the additions, those that the calling thread has to see.
  std::uint64_t additions_known(std::uint64_t g) noexcept;
  /// `ended`: additions that the reader had to see when he began.
  void expect_current(std::uint64_t g, std::uint64_t ended, const Granule& seen) noexcept;
  void expect(bool is_so, const char* otherwise) noexcept;
  void expect_ok(const Status& status) noexcept { expect(status.is_ok(), "an operation has failed"); }

  static inline thread_local World* current_ = nullptr;

  Explorer& explorer_ = Explorer::being_set_up();
  const Options options_;
  std::vector<std::byte> home_;
  std::vector<Known> known_;
  /// Additions that have begun, and when those that have ended were made.
  std::vector<std::uint64_t> begun_;
  std::vector<std::vector<WeakMemory::Stamp>> ended_;

  Memory memory_;
  PlainFrames frames_;
  device::FramePool pool_;
  std::unique_ptr<device::Paging> paging_;
  std::unique_ptr<device::DemandRegion> region_;
  std::unique_ptr<FewEntries> paged_;
  detail::PagedWindow window_{};

  unsigned kernels_ = 0;
  unsigned hosts_ = 0;
  unsigned faults_posted_ = 0;
  bool has_begun_ = false;
  bool was_pinned_ = false;
  /// For the pager's other threads, which end with the one that looks.
  const detail::PagingPort* pager_port_ = nullptr;
  unsigned others_of_pager_ = 0;
  /// The pager's by their number.
  std::deque<Warp> pager_warps_;
  std::deque<Warp> warps_;
};

}  // namespace aprime::explored
