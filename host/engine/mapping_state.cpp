#include "host/engine/mapping_state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "host/engine/failure.hpp"
#include "host/engine/host_lease.hpp"
#include "host/engine/runtime_state.hpp"

namespace aprime::engine {
namespace {

/// Address space that a writable view has beyond its file's end, so that growing the file keeps the pointer.
constexpr std::uint64_t kViewHeadroomMin = std::uint64_t{64} << 20;

GranuleReport report_of(const GranuleState& s) {
  using coherence::Kind;
  GranuleReport r{};
  switch (s.kind) {
    case Kind::cpu_exclusive: r.place = GranuleReport::Place::host; break;
    case Kind::home: r.place = GranuleReport::Place::home; break;
    case Kind::shared: r.place = GranuleReport::Place::shared; break;
    case Kind::device_exclusive: r.place = GranuleReport::Place::device; break;
    case Kind::device_owned: r.place = GranuleReport::Place::device_dirty; break;
    case Kind::mount_exclusive: r.place = GranuleReport::Place::mount; break;
  }
  r.host_may_read = s.may_read(AgentId::cpu());
  r.host_may_write = s.may_write(AgentId::cpu());
  for (unsigned d = 0; d < AgentId::kDevicesMax; ++d)
    if (s.may_read(AgentId::device(d))) r.devices = static_cast<std::uint16_t>(r.devices | 1u << d);
  return r;
}

}  // namespace

MappingState::MappingState(std::shared_ptr<RuntimeState> runtime, std::shared_ptr<CoherentFile> file,
                           ByteRange range, Access access, HostAccess host_access)
    : runtime_(std::move(runtime)),
      file_(std::move(file)),
      first_(range.first),
      access_(access),
      host_access_(host_access),
      size_(range.size.value),
      errors_seen_(file_->errors().now()) {}

MappingState::~MappingState() {
  // What cannot be copied home stays with the runtime, which has recorded why and tries again.
  static_cast<void>(close());
}

bool MappingState::is_in_child_process() const noexcept { return !runtime_->is_own_process(); }
void MappingState::require_own_process() const { runtime_->require_own_process(); }

Status MappingState::close() noexcept {
  {
    const sync::Lock lock(mutex_);
    closed_ = true;
    while (uses_ > 0) unused_.wait(mutex_);
    view_.reset();
    if (released_ || host_leases_ > 0) return {};
    released_ = true;
  }
  return runtime_->release(*file_);
}

bool MappingState::begin_use() noexcept {
  const sync::Lock lock(mutex_);
  if (!closed_) ++uses_;
  return !closed_;
}

void MappingState::end_use() noexcept {
  const sync::Lock lock(mutex_);
  --uses_;
  unused_.notify_all();
}

void MappingState::begin_host_lease() noexcept {
  const sync::Lock lock(mutex_);
  ++host_leases_;
}

void MappingState::end_host_lease() noexcept {
  const sync::Lock lock(mutex_);
  --host_leases_;
}

ByteRange MappingState::in_file(ByteRange range, const char* doing) const {
  const std::uint64_t mine = size().value;
  if (range.first.value > mine || range.size.value > mine - range.first.value)
    throw Error(Errc::out_of_range,
                fmt::format("{}: {} of {} bytes at offset {}: the mapping has {} bytes", file_->path(), doing,
                            range.size.value, range.first.value, mine),
                file_->path(), 0, ByteOffset{first_.value + std::min(range.first.value, mine)});
  return {ByteOffset{first_.value + range.first.value}, range.size};
}

void MappingState::require_writable(const char* doing) const {
  if (access_ == Access::read) throw_if_failed({Errc::access_denied, 0, first_}, file_->path(), doing);
}

void MappingState::require_in_file(ByteRange range, const char* doing) const {
  const os::File::SizeResult size = file_->file().size();
  throw_if_failed(size.status, file_->path(), doing);
  if (range.end().value <= size.size.value) return;
  file_->take_in_cut();
  const ByteOffset beyond{std::max(size.size.value, range.first.value)};
  throw_if_failed({Errc::out_of_range, 0, beyond}, file_->path(), doing);
}

const std::shared_ptr<HostView>& MappingState::view() {
  const std::uint64_t bytes = size().value;
  if (view_ != nullptr &&
      view_->granules().end().value * file_->granule().bytes().value >= first_.value + bytes)
    return view_;
  view_.reset();
  const auto make = [&](std::uint64_t headroom) {
    const ByteCount room{bytes + headroom};
    file_->reserve(ByteCount{first_.value + room.value});
    return std::make_unique<HostView>(file_->file(), ByteRange{first_, room}, file_->granule(), access_,
                                      *file_);
  };
  std::unique_ptr<HostView> made;
  try {
    made = make(access_ == Access::read_write ? std::max(bytes, kViewHeadroomMin) : 0);
  } catch (const Error&) {
    // Room to grow is a convenience, and the window of a device may have none: then the pointer moves when
    // the file grows.
    made = set_up_for(file_->path(), [&] { return make(0); });
  }
  const auto remove = [file = file_](HostView* view) {
    file->remove_view(*view);
    delete view;
  };
  file_->add_view(*made);
  view_ = std::shared_ptr<HostView>(made.release(), remove);
  return view_;
}

std::byte* MappingState::host_pointer(bool writable) {
  if (writable) require_writable("a writable pointer");
  if (size().value == 0) return nullptr;
  const sync::Lock lock(mutex_);
  return view()->data();
}

void MappingState::sync(ByteRange range) {
  const ByteRange bytes = in_file(range, "sync");
  const Status status = file_->sync(file_->granule().covering(bytes));
  Status unheard;
  {
    const sync::Lock lock(mutex_);
    unheard = file_->errors().take(errors_seen_, status);
  }
  throw_if_not_synced(status.is_ok() ? unheard : status, file_->path());
}

void MappingState::advise(ByteRange range, Advice advice) {
  const ByteRange bytes = in_file(range, "advise");
  file_->advise(advice);
  file_->file().advise(bytes, advice);
}

void MappingState::prefetch(ByteRange range, unsigned device, Right right) {
  if (includes_write(right)) require_writable("prefetch for writing");
  if (device >= file_->device_count())
    throw Error(Errc::invalid_argument,
                fmt::format("there is no device {}; the runtime has {}", device, file_->device_count()));
  const ByteRange bytes = in_file(range, "prefetch");
  if (file_->hides_new_size(bytes)) throw_if_failed(file_->take_in_size(), file_->path(), "prefetch");
  require_in_file(bytes, "prefetch");
  DeviceSlot& slot = file_->device_slot(device);
  const std::uint64_t room =
      slot.device().frames().capacity().value / file_->region(device).params().frames_per_granule.value;
  GranuleRange granules = file_->granule().covering(bytes);
  granules.count = GranuleCount{std::min(granules.count.value, room)};
  const Event event = right == Right::read ? Event::read : Event::write;
  throw_if_failed(file_->perform(granules, {.event = event, .requester = slot.agent()}), file_->path(),
                  "prefetch");
}

void MappingState::prefetch_home(ByteRange range) {
  const GranuleRange granules = file_->granule().covering(in_file(range, "prefetch"));
  throw_if_failed(file_->perform(granules, {.event = Event::read, .requester = AgentId::cpu()}),
                  file_->path(), "prefetch");
}

void MappingState::resize(ByteCount size) {
  require_writable("resize");
  constexpr auto kFileSizeMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (size.value > kFileSizeMax - first_.value)
    throw Error(Errc::invalid_argument,
                fmt::format("{}: resize: {} bytes from offset {} are more than a file can have",
                            file_->path(), size.value, first_.value),
                file_->path());
  const ByteCount end{first_.value + this->size().value};
  const Status status = set_up_for(
      file_->path(), [&] { return file_->resize(ByteCount{first_.value + size.value}, AgentId::cpu(), end); },
      fmt::format("give {} bytes to", size.value));
  if (status.code == Errc::conflict)
    throw Error(
        Errc::invalid_argument,
        fmt::format("{}: resize: the mapping ends at {}, the file at {}; only a mapping that reaches the end "
                    "of its file can be resized",
                    file_->path(), end.value, status.offset.value),
        file_->path());
  throw_if_failed(status, file_->path(), fmt::format("resize to {} bytes", size.value));
  file_->tell_mount_of_size();
  size_.store(size.value, std::memory_order_release);
}

void MappingState::discard(ByteRange range) {
  require_writable("discard");
  throw_if_failed(file_->punch(in_file(range, "discard")), file_->path(), "discard");
}

std::vector<GranuleReport> MappingState::snapshot(ByteRange range) const {
  const GranuleRange granules = file_->granule().covering(in_file(range, "snapshot"));
  std::vector<GranuleReport> reports;
  reports.reserve(granules.count.value);
  for (std::uint64_t i = 0; i < granules.count.value; ++i)
    reports.push_back(report_of(file_->directory().load(granules.first + GranuleCount{i}).state()));
  return reports;
}

HostLease MappingState::host_lease(const std::shared_ptr<MappingState>& self, ByteRange range, Right right) {
  if (includes_write(right)) require_writable("host lease for writing");
  const ByteRange bytes = in_file(range, "host lease");
  if (bytes.empty()) return {};
  require_in_file(bytes, "host lease");
  std::shared_ptr<HostView> where;
  {
    const sync::Lock lock(mutex_);
    where = view();
  }
  const GranuleRange granules = file_->granule().covering(bytes);
  const trace::Range traced(file_->tracer(), trace::Kind::lease, bytes.size);
  // Made first: once granules are pinned nothing may fail.
  auto lease = std::make_unique<detail::HostLeaseState>(
      self, where, granules,
      std::span(where->data() + range.first.value, static_cast<std::size_t>(range.size.value)));
  const Status status =
      file_->pin_together(granules, {.event = right == Right::read ? Event::read : Event::write,
                                     .requester = AgentId::cpu(),
                                     .is_fault = true,
                                     .view = where.get()});
  throw_if_failed(status, file_->path(), "host lease");
  lease->pinned = granules;
  return HostLease(std::move(lease));
}

}  // namespace aprime::engine
