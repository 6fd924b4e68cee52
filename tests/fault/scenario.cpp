#include "tests/fault/scenario.hpp"

#include <fmt/format.h>

#include "host/engine/mapping_state.hpp"

namespace aprime::fault {

using contract::kGranule;
using contract::range;

namespace {

/// More than the devices have frames for, and an end inside a page.
constexpr std::size_t kBigBytes = 20 * kGranule - 1000;
constexpr std::size_t kSmallBytes = 10 * kGranule;
constexpr std::uint64_t kDeviceGranules = 16;

ByteRange granules(std::uint64_t first, std::uint64_t count) { return contract::granules(first, count); }

ModelFile make_file(const std::string& path, std::size_t size) {
  ModelFile file{path, Shadow(size)};
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i / 700 % 7 + 1);
  for (std::size_t i = 0; i < size; i += 700)
    file.shadow.store(i, std::min<std::size_t>(700, size - i), static_cast<unsigned>(i / 700 % 7 + 1));
  contract::plain_truncate(path, size);
  contract::plain_write(path, 0, bytes);
  return file;
}

std::string created(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) throw std::runtime_error("cannot make " + path);
  std::fclose(file);
  return path;
}

}  // namespace

Scenario::Scenario(const Options& options, const std::string& directory)
    : options_(options),
      big_(make_file(created(directory + "/big"), kBigBytes)),
      small_(make_file(created(directory + "/small"), kSmallBytes)) {
  big_.holders.resize(2);
  big_.heard.resize(2);
  big_.may_hear_more.resize(2);
  small_.holders.resize(1);
  small_.heard.resize(1);
  small_.may_hear_more.resize(1);
}

Scenario::~Scenario() {
  small_.holders.clear();
  big_.holders.clear();
}

void Scenario::run(const os::sys::FaultPlan& plan) {
  plan_ = plan;
  const DeviceOptions device{.kind = options_.personality.kind,
                             .memory = ByteCount{kDeviceGranules * kGranule},
                             .workers = 1,
                             .without_userfaultfd = options_.personality.without_userfaultfd};
  const auto age = std::chrono::milliseconds(options_.with_flusher ? 1 : 0);
  attempt("make a runtime", [&] {
    runtime_.emplace(RuntimeOptions{.devices = {device, device},
                                    .granule = ByteCount{kGranule},
                                    .host_access = options_.host_access,
                                    .dirty_age_max = age});
  });
  if (!runtime_) return;
  map_all();

  fill_on_device(big_, granules(0, 6), 0);
  store_on_device(small_, range(5000, 2 * kGranule), 1);
  read(big_, range(kGranule + 100, 2 * kGranule), HostAccess::bounce);
  read(big_, granules(0, 2), HostAccess::migrate);
  write(big_, range(kGranule - 50, 2 * kGranule), HostAccess::bounce);
  write(big_, range(4 * kGranule + 11, 3000), HostAccess::migrate);
  write(big_, granules(5, 1), HostAccess::adaptive);
  load_by_pointer(big_, range(2 * kGranule, kGranule + 9));
  store_by_pointer(big_, range(3 * kGranule - 9, 5000));
  wait_for_flusher();
  copy_on_device(big_, granules(0, 5), small_, 1);
  sync(big_, 0, range(0, 3 * kGranule));
  copy_on_demand(big_, granules(2, 2), small_, 0);
  move_about(big_);
  store_on_device(big_, granules(8, 2), 0);
  write_direct(big_, range(8 * kGranule + 4096, kGranule));
  read_direct(big_, granules(7, 3));
  sync(big_, 1, range(0, kBigBytes));
  // Four times five granules dirty: the first must make room for the last.
  for (std::uint64_t part = 0; part < 4; ++part)
    store_on_device(big_, range(part * 5 * kGranule, part == 3 ? kBigBytes - 15 * kGranule : 5 * kGranule),
                    0);
  discard(big_, range(10 * kGranule - 300, 2 * kGranule));
  read(big_, range(9 * kGranule, 4 * kGranule), {});
  store_by_lease(big_, range(14 * kGranule + 5, 200));
  store_on_device(small_, granules(6, 4), 0);
  resize(small_, 6 * kGranule + 777);
  store_on_device(small_, range(6 * kGranule, 777), 1);
  resize(small_, kSmallBytes);
  read(small_, range(5 * kGranule, 3 * kGranule), {});
  sync(small_, 0, range(0, small_.shadow.size()));
  store_on_device(big_, granules(17, 2), 1);
  store_on_device(small_, granules(1, 2), 1);
  close(big_, 1);
  if (!options_.close_early) return;
  close(big_, 0);
  close(small_, 0);
  attempt("close the runtime", [&] { runtime_->close(); });
}

void Scenario::recover() {
  plan_ = {};
  recovering_ = true;
  if (!runtime_) run(plan_);
  map_all();
  for (ModelFile* file : {&big_, &small_}) {
    const ByteRange all = range(0, file->shadow.size());
    read(*file, all, options_.host_access);
    for (std::size_t h = 0; h < file->holders.size(); ++h) sync(*file, h, all);
    see_plain(*file, "what is on disk after recovery", all);
  }
  copy_on_device(big_, granules(0, 6), small_, 0);
  copy_on_demand(big_, granules(6, 2), small_, 1);
  store_on_device(big_, granules(15, 5), 1);
  load_by_pointer(big_, range(0, big_.shadow.size()));
  store_by_pointer(big_, granules(16, 1));
  store_on_device(small_, granules(0, 4), 1);
  for (ModelFile* file : {&big_, &small_})
    for (std::size_t h = 0; h < file->holders.size(); ++h) close(*file, h);
  attempt("close the runtime", [&] { runtime_->close(); });
  runtime_.reset();
  for (ModelFile* file : {&big_, &small_})
    see_plain(*file, "what is left in the end", range(0, file->shadow.size()));
}

Scenario::Outcome Scenario::attempt(const char* doing, const std::function<void()>& step) {
  try {
    step();
    return Outcome::done;
  } catch (const Error& e) {
    judge(doing, e.code(), e.system_error(), e.what(), e.path(), e.offset());
  } catch (const std::exception& e) {
    defect(doing, std::string("threw something else: ") + e.what());
  }
  ++failed_steps_;
  return Outcome::failed;
}

void Scenario::judge(const char* doing, Errc code, int system_error, const std::string& message,
                     const std::string& path, ByteOffset offset) {
  const auto described = fmt::format("\"{}\", Errc {}, errno {}, offset {}", message, static_cast<int>(code),
                                     system_error, offset.value);
  if (recovering_) return defect(doing, "failed although nothing fails any more: " + described);
  if (!is_sensible(plan_.call, plan_.error, code)) defect(doing, "failed for a strange reason: " + described);
  const bool is_about_file = code == Errc::io || code == Errc::no_space;
  if (system_error != plan_.error && (system_error != 0 || is_about_file))
    defect(doing, "the error of the system is lost: " + described);
  if (path.empty() ? is_about_file : path != big_.path && path != small_.path)
    defect(doing, fmt::format("names the file '{}': {}", path, described));
  if (message.find(path) == std::string::npos) defect(doing, "the message names no file: " + described);
  if (is_about_file && offset.value > kBigBytes)
    defect(doing, "the offset is nowhere in the file: " + described);
}

void Scenario::defect(const char* doing, const std::string& what) {
  defects_.push_back(fmt::format("{}: {}", doing, what));
}

bool is_sensible(os::sys::Call call, int system_error, Errc code) {
  using os::sys::Call;
  switch (code) {
    case Errc::no_space: return system_error == ENOSPC || system_error == EDQUOT || system_error == EFBIG;
    case Errc::io: return system_error == EIO;
    case Errc::cannot_open:
      return call == Call::open || call == Call::fstat || call == Call::fcntl || call == Call::mmap ||
             call == Call::madvise;
    case Errc::access_denied: return system_error == EPERM || system_error == EBADF;
    case Errc::invalid_argument: return call == Call::ftruncate && system_error == EINVAL;
    // The rest is about the process and not about the file.
    case Errc::resources:
      return system_error == ENOMEM || system_error == EMFILE || system_error == ENFILE ||
             call == Call::mmap || call == Call::madvise || call == Call::ioctl ||
             call == Call::userfaultfd || call == Call::memfd_create || call == Call::ftruncate;
    default: return false;
  }
}

}  // namespace aprime::fault
