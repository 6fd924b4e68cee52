#include <algorithm>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <optional>
#include <thread>

#include "host/engine/coherent_file.hpp"

namespace aprime::engine {
namespace {

/// Runs one call on the file while its granules are held.
template <class Fn>
class CallIo final : public GranuleIo {
 public:
  explicit CallIo(Fn fn) noexcept : fn_(std::move(fn)) {}
  Status on_home(GranuleRange run) noexcept override { return fn_(run); }
  Status on_copy(GranuleIndex, device::Region&) noexcept override { return {}; }

 private:
  Fn fn_;
};

/// How long a program's change of the size waits for who has a granule, and how often it looks.
constexpr std::chrono::seconds kWaitMax{10};
constexpr std::chrono::microseconds kWaitPause{200};

}  // namespace

/// What is done while the granule is held in which the file ends, or one that may lie beyond its end.
class CoherentFile::SizeIo final : public GranuleIo {
 public:
  enum class Act : std::uint8_t {
    /// Changes the size.
    resize,
    /// The devices have lost the granule in which the file ended before it grew.
    note_growth,
    /// Lets the granule go, only if it lies beyond the known end.
    forget,
  };

  SizeIo(CoherentFile& file, Act act, const SizeSeen& seen = {}, ByteCount size = {}) noexcept
      : file_(file), act_(act), seen_(seen), size_(size) {}
  bool is_done() const noexcept { return is_done_; }
  Status on_home(GranuleRange run) noexcept override {
    is_done_ = true;
    if (act_ == Act::resize) return file_.truncate_from(seen_, size_);
    if (act_ == Act::note_growth) return file_.note_end(seen_), Status{};
    // Else the file has grown again since, and what a device has there was stored afterwards.
    is_kept_ = run.first < file_.beyond_known_end().first;
    return is_kept_ ? Status{Errc::conflict, 0, file_.granule_.offset_of(run.first)} : Status{};
  }
  /// The granule was not to be forgotten.
  bool is_kept() const noexcept { return is_kept_; }
  Status on_copy(GranuleIndex, device::Region&) noexcept override { return {}; }

 private:
  CoherentFile& file_;
  const Act act_;
  const SizeSeen seen_;
  const ByteCount size_;
  bool is_done_ = false;
  bool is_kept_ = false;
};

CoherentFile::SizeSeen CoherentFile::see_size() noexcept {
  const sync::Lock lock(size_mutex_);
  const os::File::SizeResult now = file_.size();
  return {now.status, now.size, size_changes_, known_end_.load()};
}

Status CoherentFile::truncate_from(const SizeSeen& before, ByteCount size) noexcept {
  const sync::Lock lock(size_mutex_);
  const os::File::SizeResult now = file_.size();
  if (!now.status.is_ok()) return now.status;
  if (now.size != before.size || size_changes_ != before.changes) return {Errc::conflict, 0, {}};
  // What is on its way home would make the file longer again.
  const std::lock_guard alone(known_end_gate_);
  const Status status = file_.truncate(size);
  if (!status.is_ok()) return status;
  ++size_changes_;
  known_end_.store(size.value);
  return {};
}

/// The end is where it was seen, unless somebody else has told devices of one since, whose granule they may
/// have.
void CoherentFile::note_end(const SizeSeen& seen) noexcept {
  const sync::Lock lock(size_mutex_);
  if (size_changes_ != seen.changes || known_end_.load() != seen.known_end) return;
  const os::File::SizeResult now = file_.size();
  if (!now.status.is_ok()) return;
  // It may go on growing. But only what it lacks now may be taken from what devices store.
  const bool is_there = seen.size.value > seen.known_end ? now.size >= seen.size : now.size == seen.size;
  if (!is_there) return;
  const std::lock_guard alone(known_end_gate_);
  ++size_changes_;
  known_end_.store(seen.size.value);
}

bool CoherentFile::hides_new_size(ByteRange range) const noexcept {
  const os::File::SizeResult size = file_.size();
  return size.status.is_ok() && hides_new_size(size.size, range.end());
}

bool CoherentFile::hides_new_size(ByteCount size, ByteOffset end_of_range) const noexcept {
  const std::uint64_t known = known_end_.load();
  return size.value < known || (size.value > known && end_of_range.value > known);
}

Status CoherentFile::take_in_size(AgentId requester) noexcept {
  // As far as it had grown at first: it may go on.
  const SizeSeen first = see_size();
  for (SizeSeen seen = first;; seen = see_size()) {
    if (!seen.status.is_ok()) return seen.status;
    const ByteCount known{seen.known_end};
    if (known == seen.size || (known >= first.size && known < seen.size)) return {};
    if (seen.size < known) {
      take_in_cut();
      continue;
    }
    const Status status = make_room_behind(seen, requester);
    if (!status.is_ok()) return status;
  }
}

void CoherentFile::take_in_cut() noexcept {
  const SizeSeen seen = see_size();
  if (!seen.status.is_ok() || seen.size.value >= seen.known_end) return;
  note_end(seen);
  // What can be had at once. The rest goes before the file grows.
  static_cast<void>(forget_beyond_end(AgentId::cpu(), Patience::at_once));
}

/// Raises the known end to where the file was seen to end, once no device has anything of what it gains.
Status CoherentFile::make_room_behind(const SizeSeen& seen, AgentId requester) noexcept {
  const Status forgotten = forget_beyond_end(requester, Patience::wait);
  if (!forgotten.is_ok()) return forgotten;
  SizeIo io(*this, SizeIo::Act::note_growth, seen);
  const GranuleRange last{granule_.index_of(ByteOffset{seen.known_end}), GranuleCount{1}};
  if (seen.known_end % granule_.bytes().value != 0 && has_place_on_device(last.first)) {
    const Status status = requester.is_mount()
                              ? perform_for_program(last.first, Event::io_write, io, kWaitMax, false)
                              : perform(last, {.event = Event::io_write, .io = &io});
    if (!status.is_ok()) return status;
  }
  // Not done where that one is being recalled from the mount, either: then no device has it.
  if (!io.is_done()) note_end(seen);
  return {};
}

Status CoherentFile::resize(ByteCount size, AgentId requester, std::optional<ByteCount> from) {
  // Each time somebody else has changed it.
  constexpr int kTriesMax = 100;
  for (int tries = 0; tries < kTriesMax; ++tries) {
    const Status taken_in = take_in_size(requester);
    if (!taken_in.is_ok()) return taken_in;
    const SizeSeen before = see_size();
    if (!before.status.is_ok()) return before.status;
    if (from && before.size != *from) return {Errc::conflict, 0, ByteOffset{before.size.value}};
    if (before.size.value != before.known_end) continue;
    const Status status = resize_from(before, size, requester);
    if (status.code != Errc::conflict) return status;
  }
  return {Errc::resources, EBUSY, ByteOffset{size.value}};
}

Status CoherentFile::resize_from(const SizeSeen& before, ByteCount size, AgentId requester) {
  if (size.value > before.size.value) {
    reserve(size);
    // Copies that lay beyond the end, because a shrink could not take them away or was another process's:
    // what comes to lie there now is zeros.
    Status status = recall_beyond_end(requester);
    if (status.is_ok()) status = forget_beyond_end(requester, Patience::wait);
    if (!status.is_ok()) return status;
  }

  // The granule that holds the old or the new end comes home first and leaves the devices, so that what the
  // kernel zeroes there (the rest of the last page when it shrinks, nothing but zeros when it grows) is what
  // everyone reads. Until it can be had the file may get another size; then all this is for nothing.
  const ByteCount border{std::min(size.value, before.size.value)};
  SizeIo io(*this, SizeIo::Act::resize, before, size);
  Status status;
  if (border.value % granule_.bytes().value != 0) {
    const GranuleIndex g = granule_.index_of(ByteOffset{border.value});
    status = requester.is_mount()
                 ? perform_for_program(g, Event::io_write, io, kWaitMax, size.value < before.size.value)
                 : perform({g, GranuleCount{1}}, {.event = Event::io_write, .io = &io});
  }
  // Not done where no granule has its border, and where that one is being recalled: home is the newest then,
  // and whoever recalls it has not read it yet.
  if (status.is_ok() && !io.is_done()) status = truncate_from(before, size);
  if (!status.is_ok() || size.value >= before.size.value) return status;
  // From here on the file system has forgotten the bytes, and no fault gets beyond the new end (the size is
  // looked at on each): the copies may go (rule 10). The file is shorter even if one cannot be taken away
  // now: it is out of reach, what it has past the end is never written, and it goes before the file grows.
  static_cast<void>(recall_beyond_end(requester));
  static_cast<void>(forget_beyond_end(requester, requester.is_mount() ? Patience::at_once : Patience::wait));
  return {};
}

// While the size changes for a program, the kernel holds back what it has to write to the file. A recall may
// be waiting for that, and who recalls may have pinned other granules, or be waited for by who holds them.
Status CoherentFile::perform_for_program(GranuleIndex g, Event event, SizeIo& io,
                                         std::chrono::milliseconds wait_max, bool may_stay_pinned) noexcept {
  const GranuleRange range{g, GranuleCount{1}};
  const auto give_up = std::chrono::steady_clock::now() + wait_max;
  for (;;) {
    const Status status =
        perform(range, {.event = event,
                        .requester = AgentId::mount(),
                        // A running kernel that has faulted it in lets go, though not at once.
                        .patience = wait_max.count() > 0 ? Patience::briefly : Patience::at_once,
                        .io = &io});
    if (io.is_done() || (!status.is_ok() && status.system_error != EAGAIN)) return status;
    const GranuleWord seen = directory_.load(g);
    if (seen.busy() && seen.state().owner.is_mount()) return {};
    if (may_stay_pinned && seen.pins() != 0 && directory_.try_begin(g, false)) {
      // What a copy keeps past the new end is out of reach, and goes before the file grows.
      const Storing storing(*this);
      const Status done = io.on_home(range);
      unsynced_.mark(range);
      let_go(range, false);
      return done;
    }
    if (std::chrono::steady_clock::now() >= give_up) return {Errc::resources, EBUSY, granule_.offset_of(g)};
    std::this_thread::sleep_for(kWaitPause);
  }
}

GranuleRange CoherentFile::beyond_known_end() const noexcept {
  const std::uint64_t first = granule_.count_for(ByteCount{known_end_.load()}).value;
  const std::uint64_t capacity = directory_.capacity().value;
  return {GranuleIndex{first}, GranuleCount{capacity - std::min(first, capacity)}};
}

GranuleIndex CoherentFile::end_in_order_with_places() noexcept {
  // A read-modify-write, which sees every one before it.
  return GranuleIndex{granule_.count_for(ByteCount{known_end_.fetch_add(0)}).value};
}

/// For a program's own truncation, the kernel drops its pages itself.
Status CoherentFile::recall_beyond_end(AgentId requester) noexcept {
  return requester.is_mount() ? Status{} : recall_all(beyond_known_end(), Event::discard);
}

Status CoherentFile::forget_beyond_end(AgentId requester, Patience patience) noexcept {
  const bool waits = patience == Patience::wait;
  Status first_error;
  static_cast<void>(end_in_order_with_places());
  directory_.for_each_touched(beyond_known_end(), [&](GranuleIndex g, GranuleWord) {
    const GranuleRange one{g, GranuleCount{1}};
    // One that is busy without a place is being recalled from the mount, or a fault waits for a lease of it:
    // both may be waiting for the caller. Who gets a place now looks where the end is.
    if (!has_place_on_device(g)) return;
    SizeIo io(*this, SizeIo::Act::forget);
    const Status status = requester.is_mount()
                              ? perform_for_program(g, Event::discard, io,
                                                    waits ? kWaitMax : std::chrono::milliseconds{}, false)
                              : perform(one, {.event = Event::discard, .patience = patience, .io = &io});
    if (!io.is_kept() && first_error.is_ok()) first_error = status;
  });
  return first_error;
}

void CoherentFile::tell_mount_of_size() noexcept {
  mount_.with(0, [&](MountPort& mount) {
    mount.forget_attributes(file_.identity());
    return 0;
  });
}

Status CoherentFile::punch(ByteRange range) noexcept {
  if (range.empty()) return {};
  const GranuleRange all = granule_.covering(range);
  for (std::uint64_t g = all.first.value; g < all.end().value;) {
    const ByteRange whole = granule_.bytes_of(GranuleRange{GranuleIndex{g}, GranuleCount{1}});
    const bool is_part = whole.first < range.first || whole.end() > range.end();
    // Inside: every granule that lies whole in the range; the parts at both ends keep their other bytes.
    const std::uint64_t end_inside = range.end().value / granule_.bytes().value;
    const GranuleRange run{GranuleIndex{g}, GranuleCount{is_part ? 1 : end_inside - g}};
    CallIo io([&](GranuleRange held) noexcept {
      const ByteRange bytes = granule_.bytes_of(held);
      const std::uint64_t first = std::max(bytes.first.value, range.first.value);
      const std::uint64_t end = std::min(bytes.end().value, range.end().value);
      return file_.punch({ByteOffset{first}, ByteCount{end - first}});
    });
    const Event event = is_part ? Event::io_write : Event::discard;
    const Status status = perform(run, {.event = event, .io = &io});
    if (!status.is_ok()) return status;
    g += run.count.value;
  }
  return {};
}

}  // namespace aprime::engine
