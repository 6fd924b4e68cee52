#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "aprime/device_span.hpp"
#include "tests/explorer/explorer.hpp"

namespace aprime::explored {

/// A mistake that the host, or the device code, could make. For tests of the tests.
enum class Flaw : std::uint8_t {
  none,
  // Of the host.
  uses_pinned_frames,      ///< takes "pinned" for "taken"
  never_asks_again,        ///< after "pinned"
  copies_before_revoking,  ///< what goes home
  forgets_a_fault,         ///< the second
  leaves_late_rights,      ///< to a kernel that is to end
  // Of the device code.
  keeps_generation,  ///< of a copy that is taken
  forgets_pins,
  keeps_pending,  ///< of a fault that was answered
  keeps_read,     ///< of a copy that is taken
};

/// A file of a few granules, of two words each, on a device that has frames for some of them: the library's
/// device code, run by explored threads, and a host that does what Paging, DemandRegion and the engine do, in
/// as few words as it can be said.
///
/// Of a granule the first word never changes, and tells it from others; the second counts up: whoever reads
/// it sees every addition that has ended before he began, and none that begins after he has ended.
class World {
 public:
  struct Options {
    std::size_t granules = 2;
    std::size_t frames = 2;
    /// Threads that serve faults.
    unsigned servers = 1;
    bool has_pager = true;
    unsigned copiers = 0;
    /// A fault of this granule cannot be served.
    std::uint64_t bad_granule = ~std::uint64_t{0};
    Flaw flaw = Flaw::none;
  };
  using Span = device_span<std::uint64_t>;
  using ConstSpan = device_span<const std::uint64_t>;

  World(Explorer& explorer, const Options& options);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  /// A thread of the kernel. To be added first.
  void kernel(std::function<void(World&)> body);
  /// A thread of the host that uses the file meanwhile.
  void host(std::function<void(World&)> body);
  /// The rest of the host, and the pager. To be called last.
  void begin();
  /// After a run: what is wrong.
  std::string check() const;

  // For the kernel's threads.

  Span span() const noexcept { return {window_, 0, 2 * options_.granules}; }
  void add(std::uint64_t g) noexcept;
  /// By a span over the granule, with a pause in the middle.
  void add_pinned(std::uint64_t g) noexcept;
  /// By loads. `span`: the thread's own, which remembers what it looked at.
  void read(const Span& span, std::uint64_t g) noexcept;
  /// By a pin, under which nothing changes.
  void read_pinned(std::uint64_t g) noexcept;

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
  void kernel_thread_has_ended() noexcept { --kernels_; }
  /// What device code that stores `after` in a word of the page table leaves there.
  std::uint64_t stored(const std::uint64_t& word, std::uint64_t after) const noexcept;

 private:
  using Command = detail::PagingCommand;
  using Granule = std::array<std::uint64_t, 2>;
  static constexpr std::size_t kNoFrame = ~std::size_t{0};
  static constexpr unsigned kLog2Granule = 4;
  static_assert(sizeof(Granule) == std::size_t{1} << kLog2Granule);

  /// What the engine and the region know of a granule.
  struct Known {
    bool is_busy = false;
    std::size_t frame = kNoFrame;
    std::uint64_t rights = 0;
    bool is_home_stale = false;
  };
  /// Words of the port.
  struct Words {
    std::uint64_t faults_taken, stop, pager_leave, session, next_command, next_fault, faults_known, failed,
        waiting, pagers, copiers, listed, promised;
  };

  void launch() noexcept;
  void serve_faults() noexcept;
  bool serve(std::uint64_t g, bool write) noexcept;
  void fail() noexcept;
  void begin_use(std::uint64_t g) noexcept;
  void end_use(std::uint64_t g) noexcept;

  // What a region does: by commands in a session, else directly.
  void fill(std::uint64_t g) noexcept;
  void publish(std::uint64_t g, std::uint64_t rights) noexcept;
  void take(std::uint64_t g, detail::PagingOp op) noexcept;
  void copy_out(std::uint64_t g) noexcept;
  /// All of them are between these two, of which the session's end waits.
  bool begin_operation() noexcept;
  void end_operation() noexcept;

  void take_frame(std::uint64_t g) noexcept;
  bool try_evict(std::uint64_t g) noexcept;
  void bring_home(std::uint64_t g, detail::PagingOp op) noexcept;

  std::uint64_t post(const Command& command) noexcept;
  Command& slot_of(std::uint64_t ticket) const noexcept;
  bool is_done(std::uint64_t ticket) const noexcept;
  void await(std::uint64_t ticket) noexcept;
  void await_release(std::uint64_t ticket, const Command& command) noexcept;
  Command about(std::uint64_t g, detail::PagingOp op) noexcept;
  std::uint64_t entry_of(std::uint64_t g) const noexcept;
  Granule& newest(std::uint64_t g) noexcept;
  /// `ended`: additions that had when the reader began.
  void expect_current(std::uint64_t g, std::uint64_t ended, const Granule& seen) noexcept;
  void expect(bool is_so, const char* otherwise) noexcept;

  static inline thread_local World* current_ = nullptr;

  Explorer& explorer_;
  const Options options_;
  Words words_{};
  detail::PagingPort port_{};
  detail::PagedWindow window_{};
  std::vector<std::uint64_t> entries_;
  std::vector<Granule> frames_, staging_, home_;
  std::vector<bool> is_frame_free_;
  std::vector<Known> known_;
  /// Additions that have begun, and those that have ended.
  std::vector<std::uint64_t> begun_, ended_;

  std::uint64_t next_ticket_ = 0;
  unsigned kernels_ = 0;
  unsigned serving_ = 0;
  unsigned operations_ = 0;
  unsigned faults_served_ = 0;
  bool in_session_ = true;
  bool is_active_ = true;
};

}  // namespace aprime::explored
