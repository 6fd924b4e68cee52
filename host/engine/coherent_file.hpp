#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

#include "aprime/access.hpp"
#include "aprime/error.hpp"
#include "aprime/mapping.hpp"
#include "aprime/units.hpp"
#include "host/coherence/transition_table.hpp"
#include "host/device/device.hpp"
#include "host/device/granule_marks.hpp"
#include "host/engine/counters.hpp"
#include "host/engine/device_slot.hpp"
#include "host/engine/directory.hpp"
#include "host/engine/host_view.hpp"
#include "host/engine/mount_port.hpp"
#include "host/engine/patience.hpp"
#include "host/engine/stream_detector.hpp"
#include "host/engine/traffic.hpp"
#include "host/engine/view_gate.hpp"
#include "host/engine/writeback_errors.hpp"
#include "host/os/file.hpp"
#include "host/os/gate.hpp"
#include "host/sync/mutex.hpp"
#include "host/trace/trace.hpp"

namespace aprime::engine {

using coherence::AgentId;
using coherence::Event;
using coherence::PinsInTheWay;
using coherence::Step;
using device::GranuleMarks;
using device::Progress;

/// The caller's own I/O inside a transaction (steps io_home and io_copy). Called with the granules held.
class GranuleIo {
 public:
  /// Does the I/O on home for the part of the caller's request that lies in `run`.
  virtual Status on_home(GranuleRange run) noexcept = 0;
  /// Does it on the copy of granule `g` in `region`. Only events that may bounce get here.
  virtual Status on_copy(GranuleIndex g, device::Region& region) noexcept = 0;

 protected:
  ~GranuleIo() = default;
};

/// The smallest range that has both in it.
constexpr GranuleRange around(GranuleRange a, GranuleRange b) noexcept {
  if (a.empty()) return b;
  if (b.empty()) return a;
  const GranuleIndex first = std::min(a.first, b.first);
  return {first, std::max(a.end(), b.end()) - first};
}

/// What is asked of a run of granules.
struct Demand {
  Event event;
  AgentId requester = AgentId::cpu();
  Patience patience = Patience::wait;
  /// Leave each granule pinned.
  bool pin = false;
  /// An access trapped: the hardware has less than the directory allows, even if there is nothing to do.
  bool is_fault = false;
  /// The host view whose access faulted; rights are given to all views if null.
  HostView* view = nullptr;
  GranuleIo* io = nullptr;
  /// Keep the CPU's pointers out while `io` works on home: direct I/O goes past the page cache, and the
  /// kernel does not make it coherent with stores through a mapping of the same page. A write may leave the
  /// page cache with the old bytes, a read may fail with EIO (a store to a hole that came in between).
  bool shuts_out_host = false;
  /// Software-paged leases: the first frame of the run reserved for the range whose first granule is
  /// `placed_from`.
  const FrameIndex* placement = nullptr;
  GranuleIndex placed_from{};
  /// For Event::overwrite: where what the requester will store ends, if that is not where the last granule
  /// does. What the file has behind it stays.
  ByteOffset overwritten_end{~std::uint64_t{0}};
};

/// One file and everything that is known about its granules: the directory, A′ on each device, the host
/// views. All agents and all I/O of a runtime on this file go through here; `perform` is the only way to
/// change a granule.
///
/// Thread-safe. Operations that are `noexcept` may run inside a signal handler and allocate nothing.
class CoherentFile final : public device::FaultHandler, public HostFaultHandler, public device::HomePort {
 public:
  /// `size`: that of the file, as it was seen last. `mount` and `tracer` outlive it. \throws Error(resources)
  CoherentFile(os::File file, ByteCount size, GranuleSize granule, std::span<DeviceSlot* const> devices,
               Counters& host, MountSlot& mount, const trace::Tracer& tracer);
  /// \pre no transaction is under way; dirty bytes were copied home or are to be lost
  ~CoherentFile();

  os::File& file() noexcept { return file_; }
  const std::string& path() const noexcept { return file_.path(); }
  GranuleSize granule() const noexcept { return granule_; }
  Directory& directory() noexcept { return directory_; }
  device::Region& region(unsigned device) noexcept { return *regions_[device]; }
  WritebackErrors& errors() noexcept { return errors_; }
  DeviceSlot& device_slot(unsigned device) noexcept { return *devices_[device]; }
  std::size_t device_count() const noexcept { return devices_.size(); }

  /// Does `demand` for every granule of `range`, in runs of neighbours that are alike. Stops at the first
  /// failure; what was done stays done.
  Status perform(GranuleRange range, const Demand& demand) noexcept {
    return perform_counted(range, demand).status;
  }
  /// The same, and says how many granules were done.
  Progress perform_counted(GranuleRange range, const Demand& demand) noexcept;
  /// The same for [first, first + 1) at least and up to `wanted` as far as the neighbours can be had at once.
  Status perform_batch(GranuleIndex first, GranuleCount wanted, const Demand& demand) noexcept;
  /// Does it for all of `range` and leaves all pinned, or none. Nothing is pinned while it waits for long:
  /// whoever has the one that is waited for may wait for those (a launch that leases and faults).
  Status pin_together(GranuleRange range, const Demand& demand) noexcept;
  /// Pins the first granules of `range` for a device's lease, as many as can be had without waiting for
  /// anybody, and says how many these are: none where it is not worth while. Two threads take turns, so that
  /// the device has the next bytes to copy while the last ones of a run are on their way. For the others, and
  /// to be told of a failure, ask again by `perform_counted`.
  GranuleCount pin_by_turns(GranuleRange range, const Demand& demand) noexcept;
  /// `holder`: whose lease it is; a device's pins its frames, too.
  void unpin(GranuleRange range, AgentId holder = AgentId::cpu()) noexcept;

  /// Shared by launches that take leases here, had alone by one that must not meet them: see LeaseGates.
  os::Gate& lease_gate() noexcept { return lease_gate_; }

  /// Gives the frame of a granule back to the device's pool, if nobody uses it, and threads of a running
  /// kernel let it go (`ask_once` or `briefly`; else EAGAIN). Called for another file's or this file's fault.
  Status evict(unsigned device, GranuleIndex g, Patience patience) noexcept;

  // Host views. Adding and removing waits for transactions that change CPU rights, and for nothing else.
  /// \throws std::bad_alloc, and then it was not added
  void add_view(HostView& view);
  void remove_view(HostView& view) noexcept;
  /// Over-protections of the views, and of a device's region, that exist now.
  std::uint64_t view_over_protections() noexcept;
  std::uint64_t device_over_protections(unsigned device) const noexcept {
    return regions_[device]->over_protections();
  }
  bool any_view_contains(const void* p, std::size_t size) noexcept;

  /// Makes tables and windows large enough for a file of `size` bytes. \throws Error(resources)
  void reserve(ByteCount size);
  /// The tables only, for a file that has grown by its plain path: no mapping reaches so far, and so no
  /// device. \throws Error(resources)
  void reserve_for_mount(ByteCount size);

  /// Copies dirty granules of `range` home. `patience` skip leaves out what is busy or leased. The first
  /// error is returned after all were tried, and recorded.
  Status write_back(GranuleRange range, Patience patience) noexcept;
  /// write_back, then fdatasync. Bytes whose fdatasync failed are written again by the next call, which waits
  /// for no pin and no granule for that: its caller may have them, or be waited for by who has. What
  /// programs have stored to pages of a mount is recalled first, unless it is the mount that asks: its kernel
  /// has sent it.
  Status sync(GranuleRange range, AgentId requester = AgentId::cpu()) noexcept;
  /// The fdatasync alone: what home has gets to the disk. \pre the caller holds no granule
  Status sync_home() noexcept;
  /// Everything for which this is needed: what devices have stored, and what a failed sync has left to be
  /// written again. Valid answers: as `sync`; resources.
  Status come_home() noexcept;
  /// Whether no device has anything that home has not.
  bool is_home() const noexcept;

  /// Sets the file's size (both directions). Fails with io / no_space / resources and leaves everything as it
  /// was. With `from`, only a file that has this size in the moment when it gets the other one: else
  /// conflict, and nothing is changed. For the mount, which asks while its kernel holds back pages to be
  /// written, nothing is recalled, and pins are waited for only where the file grows and only so long
  /// (resources, EBUSY).
  Status resize(ByteCount size, AgentId requester = AgentId::cpu(), std::optional<ByteCount> from = {});
  /// To be called before anybody gets at bytes where `hides_new_size`: devices learn the size that the file
  /// has got by its plain path. What they have behind an end that has come nearer is no part of the file, and
  /// none of it is left when the end moves away again; then the granule in which the file ended, where they
  /// have zeros behind the end, goes as well. May wait for a kernel if the file has grown, for the mount only
  /// as in `resize`. Valid answers: as `perform`.
  Status take_in_size(AgentId requester = AgentId::cpu()) noexcept;
  /// The same only if the file has become shorter. Waits for nobody.
  void take_in_cut() noexcept;
  /// Whether a range may have bytes for which that is needed.
  bool hides_new_size(ByteRange range) const noexcept;
  /// To be called after a resize that no program on the mount has asked for.
  void tell_mount_of_size() noexcept;
  /// Makes a range read as zeros and frees its disk space.
  Status punch(ByteRange range) noexcept;

  // mount_pages.cpp: the mount as an agent. It owns a granule, and may store to it, from the first page that
  // its kernel caches until the granule is recalled.
  /// For pages that the kernel is about to cache, and holds locked meanwhile: the mount owns their granules
  /// afterwards, and home has the newest bytes until the kernel has its answer. A granule that is being
  /// recalled just now is the mount's still, and recalled once more; that recall waits for the pages. A guess
  /// never waits: it fails with EAGAIN if a granule cannot be had at once, or only from a device though no
  /// program works near by. \pre one granule if it is no guess
  Status page_in(GranuleRange granules, bool is_guess) noexcept;
  /// Writes what a program has stored to a cached page.
  Status page_out(ByteOffset at, std::span<const std::byte> from) noexcept;

  void advise(Advice advice) noexcept;
  StreamDetector& device_stream(unsigned device) noexcept { return device_streams_[device]; }
  Traffic& traffic() noexcept { return traffic_; }
  Counters& host_counters() noexcept { return host_; }
  const trace::Tracer& tracer() const noexcept { return tracer_; }

  // device::FaultHandler
  Status on_device_fault(device::Region& region, GranuleIndex granule, bool write) noexcept override;
  // HostFaultHandler
  Status on_host_fault(HostView& view, GranuleIndex granule, bool write) noexcept override;
  bool is_backed(ByteOffset at) noexcept override;
  // device::HomePort
  Status read(ByteOffset at, std::span<std::byte> into) noexcept override { return file_.read(at, into); }
  Status write(ByteOffset at, std::span<const std::byte> from) noexcept override {
    return put_known(at, from, [this](ByteOffset part, std::span<const std::byte> bytes) {
      return file_.write(part, bytes);
    });
  }
  Status store(ByteOffset at, std::span<const std::byte> from) noexcept override {
    return put_known(at, from, [this](ByteOffset part, std::span<const std::byte> bytes) {
      return file_.store(part, bytes);
    });
  }
  std::span<const std::byte> alias() noexcept override { return file_.alias(); }

 private:
  /// Granules that one transaction holds, all in the same state.
  struct Run {
    GranuleRange range;
    GranuleState state;
  };

  // turns.cpp
  struct Turns;
  GranuleRange take_turns(Turns& turns, const Demand& demand) noexcept;

  // transaction.cpp: how a run is taken, worked through and let go.
  Progress perform_run(GranuleIndex first, GranuleCount wanted, const Demand& demand) noexcept;
  bool take_first(GranuleIndex g, const Demand& demand, Run& run) noexcept;
  static PinsInTheWay in_the_way(const coherence::GranuleState& s, const Demand& demand) noexcept;
  bool is_pinned_by_device(GranuleIndex g) const noexcept;
  ByteCount bytes_at_once(const Run& run, const Demand& demand) const noexcept;
  void take_more(Run& run, GranuleCount wanted, const Demand& demand) noexcept;
  Status execute(Run& run, const Demand& demand) noexcept;
  Status finish(Run& run, const Demand& demand, bool nothing_planned) noexcept;
  Status settle(Run& run, Progress progress, Step step, AgentId requester) noexcept;
  bool can_pin(GranuleRange range) const noexcept;
  void let_go(GranuleRange range, bool pin) noexcept;

  // steps.cpp: what each step does to the hardware and the bytes. Each ends in `settle`.
  Status take_step(Run& run, Step step, const Demand& demand) noexcept;
  template <class Try, class Take>
  Progress take_from_kernels(Run& run, Patience patience, const Try& try_to, const Take& take) noexcept;
  Status protect(Run& run, const Demand& demand) noexcept;
  Status recall(Run& run, AgentId requester) noexcept;
  Status do_mounts_own(Run& run, const Demand& demand) noexcept;
  Status copy_home(Run& run, AgentId requester) noexcept;
  Status revoke(Run& run, Step step, const Demand& demand) noexcept;
  Status release(Run& run, unsigned device, Step step, AgentId requester, Patience patience) noexcept;
  Status fill(Run& run, Step step, const Demand& demand) noexcept;
  bool overwritten_whole(GranuleRange run, const Demand& demand) noexcept;
  /// What stands in for Step::adopt where not every byte is overwritten.
  Status fill_to_write(Run& run, const Demand& demand) noexcept;
  Progress copy_out(GranuleRange run, device::Region& region) noexcept;
  Status grant_to_host(Run& run, Step step, const Demand& demand) noexcept;
  Status grant_write_to_device(Run& run, AgentId requester) noexcept;
  Status do_io(Run& run, Step step, const Demand& demand) noexcept;
  Status set_views(Run& run, HostView* only, os::Protection p) noexcept;

  void reserve_tables(ByteCount size) APRIME_REQUIRES(reserve_mutex_);

  // mount_pages.cpp
  Progress note_mounted(GranuleRange granules, std::uint64_t arrived) noexcept;
  bool any_busy(GranuleRange granules) const noexcept;
  bool any_on_device(GranuleRange granules) const noexcept;
  /// Whether a device has a frame for it: a copy, or one that is on its way.
  bool has_place_on_device(GranuleIndex g) const noexcept;
  bool is_near_use(GranuleRange guess) const noexcept;
  /// Takes what the mount has of the range, by `event`.
  Status recall_all(GranuleRange range, Event event) noexcept;

  // frames.cpp: where A' lies.
  Progress obtain_frames(GranuleRange run, unsigned device, const Demand& demand) noexcept;
  Status obtain_frame(GranuleIndex g, unsigned device, bool may_wait) noexcept;
  FrameIndex placed_at(GranuleIndex g, unsigned device, const Demand& demand) const noexcept;
  /// Moves the copies that the device has to where the lease wants them, rows of them in one go.
  Status place(GranuleRange run, unsigned device, const Demand& demand) noexcept;
  void free_frames(GranuleRange run, unsigned device) noexcept;
  void mark_dirty(GranuleRange run, unsigned device) noexcept;
  void mark_clean(GranuleRange run, unsigned device) noexcept;

  // faults.cpp
  GranuleCount clip_to_file(GranuleIndex g, GranuleCount wanted, ByteCount file_size) const noexcept;
  void throttle(GranuleIndex g, AgentId requester) noexcept;

  // writeback.cpp
  /// Around storing to home and the mark that tells a sync of it.
  class Storing {
   public:
    explicit Storing(CoherentFile& file) noexcept : under_way_(file.storing_) { under_way_.fetch_add(1); }
    ~Storing() { under_way_.fetch_sub(1); }
    Storing(const Storing&) = delete;
    Storing& operator=(const Storing&) = delete;

   private:
    std::atomic<unsigned>& under_way_;
  };
  Status try_sync_home() APRIME_REQUIRES(sync_mutex_);
  Status dirty_unsynced() APRIME_REQUIRES(sync_mutex_);
  GranuleRange take_within_pointers() noexcept;
  /// \throws std::bad_alloc
  std::vector<GranuleRange> dirty_runs(GranuleRange range);
  Status write_back_each(GranuleRange range, Patience patience) noexcept;
  Status write_back_run(GranuleRange run, Patience patience) noexcept;

  // file_size.cpp
  class SizeIo;
  /// The size of the file; how often this runtime had changed it when it was looked at, or had told devices
  /// of it, and what end they were told of.
  struct SizeSeen {
    Status status;
    ByteCount size;
    std::uint64_t changes;
    std::uint64_t known_end;
  };
  SizeSeen see_size() noexcept;
  Status resize_from(const SizeSeen& before, ByteCount size, AgentId requester);
  /// Changes the size if it is still what was seen, and was all the time: else conflict.
  Status truncate_from(const SizeSeen& before, ByteCount size) noexcept;
  void note_end(const SizeSeen& seen) noexcept;
  Status make_room_behind(const SizeSeen& seen, AgentId requester) noexcept;
  /// What is no part of the file as devices know it.
  GranuleRange beyond_known_end() const noexcept;
  /// The first of these. Who has noted a frame and asks for this, and who has moved the end and looks for
  /// frames: one of the two sees what the other has done.
  GranuleIndex end_in_order_with_places() noexcept;
  bool hides_new_size(ByteCount size, ByteOffset end_of_range) const noexcept;
  /// `put(at, bytes)` for those of a device's bytes that are the file's.
  template <class Put>
  Status put_known(ByteOffset at, std::span<const std::byte> from, const Put& put) noexcept;
  /// For the mount. Waits only so long for who has the granule, and then fails with resources and EBUSY; for
  /// pins not at all if it may stay pinned. Where it is being recalled, `io` is not done, which is no
  /// failure.
  Status perform_for_program(GranuleIndex g, Event event, SizeIo& io, std::chrono::milliseconds wait_max,
                             bool may_stay_pinned) noexcept;
  /// Takes from devices what lies beyond the known end. `at_once` leaves there what would have to be waited
  /// for; `wait` waits for the mount only so long, and then fails with resources and EBUSY.
  Status forget_beyond_end(AgentId requester, Patience patience) noexcept;
  Status recall_beyond_end(AgentId requester) noexcept;

  os::File file_;
  /// Held across ftruncate, and while no granule is waited for.
  sync::Mutex size_mutex_{sync::LockRank::file};
  std::uint64_t size_changes_ APRIME_GUARDED_BY(size_mutex_) = 0;
  /// Where the file ended when devices were told last; it may end elsewhere since, by its plain path. What
  /// devices have behind it is never written home: zeros in the granule that this lies in, and the copies
  /// beyond that they had when it came nearer. They get no others (see `fill`), and it moves away while they
  /// have none of these.
  std::atomic<std::uint64_t> known_end_{0};
  /// Shared while devices' bytes are written in front of it, had alone while it moves: what is on its way
  /// home is awaited then.
  os::Gate known_end_gate_;
  const GranuleSize granule_;
  const std::vector<DeviceSlot*> devices_;
  Counters& host_;
  MountSlot& mount_;
  const trace::Tracer& tracer_;
  sync::Mutex reserve_mutex_{sync::LockRank::file_tables};
  Directory directory_;
  std::vector<AttachedRegion> regions_;
  /// So many have room on every device. The directory may have more.
  std::atomic<std::uint64_t> granules_on_devices_{0};

  os::Gate lease_gate_;
  ViewGate view_gate_;
  /// Changed with the gate closed, read by those who passed it.
  std::vector<HostView*> views_;
  /// Around the granules of writable ones that have ended since the last fdatasync. Likewise.
  GranuleRange ended_views_;

  sync::Mutex late_mutex_{sync::LockRank::late_pages};
  /// From the mount, under way.
  unsigned recalls_ APRIME_GUARDED_BY(late_mutex_) = 0;
  /// A page that was read for the mount's kernel meanwhile, while its granule was in a transaction.
  struct LatePage {
    GranuleIndex granule;
    std::uint64_t arrived;
  };
  std::vector<LatePage> late_pages_ APRIME_GUARDED_BY(late_mutex_);
  /// How many rounds of recalls ever began.
  std::atomic<std::uint64_t> recall_rounds_{0};
  /// Recalls under way that had to look again so often that pages should wait a little for them.
  std::atomic<unsigned> outrun_recalls_{0};
  /// Given to the mount, and not recalled by `recall_all` since: it owns no others. Marks are taken away
  /// under the mutex, held until what they stood for is home.
  GranuleMarks mounted_;
  sync::Mutex recall_all_mutex_{sync::LockRank::file_sync};

  std::array<StreamDetector, AgentId::kDevicesMax> device_streams_;
  StreamDetector host_stream_;
  Traffic traffic_;
  WritebackErrors errors_;
  /// Written to home since the last fdatasync that succeeded; a mark comes after the bytes. When one fails,
  /// the kernel calls the pages clean all the same, so that they must be made dirty again before the next can
  /// mean anything.
  GranuleMarks unsynced_;
  /// Those who are between the first of the bytes and the mark.
  std::atomic<unsigned> storing_{0};
  sync::Mutex sync_mutex_{sync::LockRank::file_sync};
  /// Around what may have been stored by pointers, which mark nothing, before an fdatasync that failed. As
  /// long as none has succeeded since.
  GranuleRange unsynced_by_pointer_ APRIME_GUARDED_BY(sync_mutex_);
  bool last_sync_failed_ APRIME_GUARDED_BY(sync_mutex_) = false;
};

template <class Put>
Status CoherentFile::put_known(ByteOffset at, std::span<const std::byte> from, const Put& put) noexcept {
  // Or what was on its way when the end came nearer would reach what is added behind it then.
  const std::shared_lock shared(known_end_gate_);
  const std::uint64_t end = known_end_.load();
  if (at.value >= end) return {};
  return put(at, from.first(static_cast<std::size_t>(std::min<std::uint64_t>(from.size(), end - at.value))));
}

}  // namespace aprime::engine
