#include "host/engine/runtime_state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <new>
#include <optional>

#include "host/engine/failure.hpp"
#include "host/engine/mapping_state.hpp"
#include "host/os/quiet_thread.hpp"

namespace aprime::engine {
namespace {

GranuleSize checked_granule(ByteCount bytes, const std::string& path) {
  if (!GranuleSize::is_valid(bytes))
    throw Error(
        Errc::invalid_argument,
        fmt::format("{}: granule {} is not a power of two from 4096 to 2097152 bytes", path, bytes.value),
        path);
  return GranuleSize::of(bytes);
}

std::uint32_t now_ms() noexcept {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return static_cast<std::uint32_t>(t.tv_sec * 1000 + t.tv_nsec / 1000000);
}

}  // namespace

RuntimeState::RuntimeState(const RuntimeOptions& options,
                           std::vector<std::unique_ptr<device::Device>> devices)
    : options_(options) {
  for (auto& d : devices) {
    slots_.push_back(
        std::make_unique<DeviceSlot>(static_cast<unsigned>(slots_.size()), std::move(d), tracer_));
    slot_pointers_.push_back(slots_.back().get());
  }
  for (const auto& slot : slots_) queues_.push_back(std::make_unique<LaunchQueue>(*slot));
  if (options_.dirty_age_max.count() > 0) flusher_ = os::start_quiet_thread([this] { run_flusher(); });
}

RuntimeState::~RuntimeState() {
  queues_.clear();
  {
    const sync::Lock lock(flusher_mutex_);
    stopping_ = true;
  }
  flusher_wakeup_.notify_all();
  if (flusher_.joinable()) flusher_.join();
  const sync::Lock lock(mutex_);
  files_.clear();
}

bool RuntimeState::is_own_process() const noexcept { return process_.is_this(); }

void RuntimeState::require_own_process() const {
  if (!is_own_process()) throw Error(Errc::invalid_argument, kInChildProcess);
}

std::shared_ptr<MappingState> RuntimeState::map(os::File opened, Access access, const MapOptions& options) {
  const auto [file, size] = known_file(std::move(opened), access, options);
  try {
    throw_if_failed(file->take_in_size(), file->path(), "map what it has gained");
    const ByteCount length = options.length.value_or(ByteCount{size.value - options.offset.value});
    return std::make_shared<MappingState>(shared_from_this(), file, ByteRange{options.offset, length}, access,
                                          options.host_access.value_or(options_.host_access));
  } catch (...) {
    static_cast<void>(release(*file));
    throw;
  }
}

std::pair<std::shared_ptr<CoherentFile>, ByteCount> RuntimeState::known_file(os::File opened, Access access,
                                                                             const MapOptions& options) {
  const std::string path = opened.path();
  const GranuleSize granule = checked_granule(options.granule.value_or(options_.granule), path);
  if (granule.bytes() < options_.granule)
    throw Error(
        Errc::invalid_argument,
        fmt::format(
            "{}: granule {} is smaller than the runtime's {}, which is the frame size of its devices; "
            "set RuntimeOptions::granule to the smallest granule you need",
            path, granule.bytes().value, options_.granule.value),
        path);
  if (options.offset.value % granule.bytes().value != 0)
    throw Error(Errc::invalid_argument,
                fmt::format("{}: offset {} is not a multiple of the granule {}", path, options.offset.value,
                            granule.bytes().value),
                path);
  if (mount_.with(false, [&](MountPort& mount) { return mount.is_own(opened.identity().device); }))
    throw Error(
        Errc::cannot_open,
        fmt::format("cannot map '{}': it lies on the mount that this runtime serves; map the file by its "
                    "path in the source of the mount",
                    path),
        path);

  let_go_for(granule, opened.identity());
  const sync::Lock lock(mutex_);
  auto entry = entry_of(opened.identity());
  if (entry != files_.end() && entry->file->granule() != granule)
    throw Error(Errc::conflict,
                fmt::format("{}: is mapped with granule {}; map it with the same one, not {}", path,
                            entry->file->granule().bytes().value, granule.bytes().value),
                path);
  const os::File::SizeResult size = opened.size();
  throw_if_failed(size.status, path, "look at the size");
  if (options.offset.value > size.size.value ||
      (options.length && options.length->value > size.size.value - options.offset.value))
    throw Error(Errc::out_of_range,
                fmt::format("{}: the range to map ends beyond the end of the file, which has {} bytes", path,
                            size.size.value),
                path, 0, ByteOffset{size.size.value});
  if (entry == files_.end()) {
    files_.push_back({.id = ++files_known_, .file = set_up_for(path, [&] {
                                              return std::make_shared<CoherentFile>(
                                                  std::move(opened), size.size, granule, slot_pointers_,
                                                  host_, mount_, tracer_);
                                            })});
    entry = files_.end() - 1;
    try {
      mount_.with(0, [&](MountPort& mount) { return mount.attach(entry->file), 0; });
    } catch (...) {
      files_.erase(entry);
      throw;
    }
  } else {
    if (access == Access::read_write) entry->file->file().make_writable(path);
    set_up_for(path, [&] { entry->file->reserve(size.size); });
  }
  ++entry->mappings;
  return {entry->file, size.size};
}

Status RuntimeState::release(CoherentFile& file) noexcept {
  {
    const sync::Lock lock(mutex_);
    const auto entry = entry_of(file);
    if (entry == files_.end() || --entry->mappings > 0) return {};
  }
  const Status status = let_go(file);
  let_stuck_go();
  return status;
}

std::vector<RuntimeState::FileEntry>::iterator RuntimeState::entry_of(const CoherentFile& file) noexcept {
  return std::find_if(files_.begin(), files_.end(),
                      [&](const FileEntry& e) { return e.file.get() == &file; });
}

std::vector<RuntimeState::FileEntry>::iterator RuntimeState::entry_of(
    const os::FileIdentity& identity) noexcept {
  return std::find_if(files_.begin(), files_.end(),
                      [&](const FileEntry& e) { return e.file->file().identity() == identity; });
}

void RuntimeState::let_go_for(GranuleSize granule, const os::FileIdentity& identity) noexcept {
  std::shared_ptr<CoherentFile> idle;
  {
    const sync::Lock lock(mutex_);
    const auto entry = entry_of(identity);
    if (entry != files_.end() && entry->mappings == 0 && entry->file->granule() != granule)
      idle = entry->file;
  }
  if (idle != nullptr) static_cast<void>(let_go(*idle));
}

Status RuntimeState::let_go(CoherentFile& file) noexcept {
  for (;;) {
    // While others map theirs.
    Status status = file.come_home();
    const sync::Lock lock(mutex_);
    const auto entry = entry_of(file);
    if (entry == files_.end() || entry->mappings > 0) return status;
    // It was mapped meanwhile, and let go again: what was stored then is on its way still.
    if (status.is_ok() && !file.is_home()) continue;
    if (status.is_ok()) status = mount_.with(Status{}, [&](MountPort& mount) { return mount.detach(file); });
    if (status.is_ok())
      files_.erase(entry);
    else
      entry->is_stuck = true;
    return status;
  }
}

void RuntimeState::let_stuck_go() noexcept {
  const auto is_stuck = [](const FileEntry& e) { return e.mappings == 0 && e.is_stuck; };
  for_each_file([&](CoherentFile& file) { static_cast<void>(let_go(file)); }, is_stuck);
}

std::shared_ptr<CoherentFile> RuntimeState::file_after(std::uint64_t& id,
                                                       bool (*which)(const FileEntry&)) const noexcept {
  const sync::Lock lock(mutex_);
  for (const FileEntry& e : files_) {
    if (e.id <= id || !which(e)) continue;
    id = e.id;
    return e.file;
  }
  return nullptr;
}

Completion RuntimeState::submit(unsigned device, const std::string& name, const Grid* grid,
                                std::unique_ptr<detail::LaunchClosure> closure,
                                std::vector<LeaseRequest> requests) {
  static_cast<void>(slot_for(device));
  if (const char* const problem = grid != nullptr ? grid->problem() : nullptr; problem != nullptr)
    throw Error(Errc::invalid_argument, fmt::format("{}: {}", name, problem));
  Launch launch;
  launch.name = name;
  if (grid != nullptr) launch.grid = *grid;
  launch.closure = std::move(closure);
  for (const LeaseRequest& r : requests) {
    MappingUse use(r.mapping.lock());
    if (use.get() == nullptr)
      throw Error(Errc::invalid_argument,
                  name +
                      ": what it shall lease has no file: the mapping was closed, has ended, or was not made "
                      "by Runtime::map");
    MappingState& mapping = *use.get();
    if (!mapping.is_of(*this))
      throw Error(Errc::invalid_argument,
                  fmt::format("{}: {} is mapped by another runtime; map it by the one that launches", name,
                              mapping.file().path()),
                  mapping.file().path());
    if (includes_write(r.right)) mapping.require_writable("lease for writing");
    launch.mappings.push_back(std::move(use));
    launch.requests.push_back(
        {mapping.shared_file(), mapping.in_file(r.range, "lease"), r.right, r.on_demand});
  }
  launch.completion = std::make_shared<detail::CompletionState>();
  Completion completion(launch.completion);
  queues_[device]->push(std::move(launch));
  return completion;
}

void RuntimeState::drain_launches() {
  for (const auto& queue : queues_) queue->drain();
}

Status RuntimeState::copy_home(std::string& failed_path) noexcept {
  Status first_error;
  for_each_file([&](CoherentFile& file) {
    const Status status = file.write_back({GranuleIndex{0}, file.directory().capacity()}, Patience::wait);
    if (status.is_ok() || !first_error.is_ok()) return;
    first_error = status;
    try {
      failed_path = file.path();
    } catch (const std::bad_alloc&) {
      // It is told of without.
    }
  });
  return first_error;
}

Status RuntimeState::close(std::string& failed_path) {
  drain_launches();
  const Status status = copy_home(failed_path);
  if (status.is_ok()) let_stuck_go();
  return status;
}

void RuntimeState::add_mount(MountPort& mount) {
  const sync::Lock lock(mutex_);
  if (mount_.is_taken())
    throw Error(Errc::conflict, "this runtime serves a mount already; use one runtime for each mount");
  for (const FileEntry& e : files_) mount.attach(e.file);
  mount_.set(&mount);
}

void RuntimeState::with_file(const os::FileIdentity& identity,
                             const std::function<void(const std::shared_ptr<CoherentFile>&)>& fn) const {
  const sync::Lock lock(mutex_);
  for (const FileEntry& e : files_)
    if (e.file->file().identity() == identity) fn(e.file);
}

DeviceSlot& RuntimeState::slot_for(unsigned device) const {
  if (device >= slots_.size())
    throw Error(Errc::invalid_argument,
                fmt::format("there is no device {}; the runtime has {}", device, slots_.size()));
  return *slots_[device];
}

bool RuntimeState::should_flush() const noexcept {
  const std::uint32_t now = now_ms();
  std::uint64_t dirty = 0;
  for (const auto& slot : slots_) {
    const std::uint64_t here = Counters::get(slot->counters().dirty_bytes);
    if (here == 0) continue;
    dirty += here;
    const auto age = std::chrono::milliseconds{now - slot->device().frames().oldest_dirty(now)};
    if (age >= options_.dirty_age_max) return true;
  }
  return dirty > options_.dirty_bytes_max.value;
}

void RuntimeState::flush() noexcept {
  if (!should_flush()) return;
  // A failure is recorded with the file and told by its holders' next sync.
  for_each_file([](CoherentFile& file) {
    static_cast<void>(file.write_back({GranuleIndex{0}, file.directory().capacity()}, Patience::skip));
  });
}

void RuntimeState::run_flusher() noexcept {
  // Often enough that nothing stays dirty for much longer than asked, seldom enough to cost nothing.
  const auto tick =
      std::clamp(options_.dirty_age_max / 4, std::chrono::milliseconds{5}, std::chrono::milliseconds{500});
  for (;;) {
    {
      const sync::Lock lock(flusher_mutex_);
      if (!stopping_) flusher_wakeup_.wait_for(flusher_mutex_, tick);
      if (stopping_) return;
    }
    flush();
    let_stuck_go();
  }
}

std::vector<DeviceInfo> RuntimeState::devices() const {
  std::vector<DeviceInfo> infos;
  for (const auto& slot : slots_) infos.push_back(slot->device().info());
  return infos;
}

void RuntimeState::add_device_stats(DeviceSlot& slot, Stats& s) const {
  slot.counters().add_to(s, false);
  s.resident_bytes += slot.resident_bytes().value;
  for_each_file(
      [&](CoherentFile& file) { s.over_protections += file.device_over_protections(slot.number()); });
}

Stats RuntimeState::stats(unsigned device) const {
  Stats s;
  add_device_stats(slot_for(device), s);
  return s;
}

Stats RuntimeState::stats() const {
  Stats s;
  host_.add_to(s, true);
  for (const auto& slot : slots_) add_device_stats(*slot, s);
  for_each_file([&](CoherentFile& file) { s.over_protections += file.view_over_protections(); });
  return s;
}

}  // namespace aprime::engine
