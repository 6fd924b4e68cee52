#include "tests/contract/contract.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <stdexcept>
#include <thread>

namespace aprime::contract {
namespace {

constexpr std::uint64_t kResultBytes = 2 << 20;

/// One worker runs it, so that two do not fault for one granule at once and the numbers of faults are exact.
constexpr Grid kOneBlock{{1}, {64}};

class PlainFile {
 public:
  PlainFile(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {
    if (fd_ < 0) throw std::runtime_error("cannot open " + path);
  }
  ~PlainFile() { ::close(fd_); }
  PlainFile(const PlainFile&) = delete;
  PlainFile& operator=(const PlainFile&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

std::vector<Personality> software_paged_personalities() {
  std::vector<Personality> all = personalities();
  std::erase_if(all, [](const Personality& p) { return p.kind == DeviceKind::emulated; });
  return all;
}

std::vector<Personality> watching_personalities() {
  std::vector<Personality> all = personalities();
  std::erase_if(all, [](const Personality& p) { return !p.watches_kernels; });
  return all;
}

World::World(const Personality& personality, const WorldOptions& options)
    : directory_(std::filesystem::temp_directory_path().string() + "/aprime-contract-XXXXXX") {
  if (::mkdtemp(directory_.data()) == nullptr) throw std::runtime_error("mkdtemp");
  const DeviceOptions device = personality.device(options.device_memory, options.workers);
  runtime_ = std::make_unique<Runtime>(RuntimeOptions{.devices = std::vector(options.devices, device),
                                                      .granule = options.granule,
                                                      .host_access = options.host_access,
                                                      .dirty_bytes_max = options.dirty_bytes_max,
                                                      .dirty_age_max = options.dirty_age_max});
  hardware_paged_ = runtime_->devices().front().hardware_paged;
  for (unsigned d = 0; d < options.devices; ++d) results_.push_back(map(sparse_file(kResultBytes)));
}

World::~World() {
  end_runtime();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

void World::end_runtime() {
  results_.clear();
  runtime_.reset();
}

std::string World::path_for(const std::string& name) { return directory_ + "/" + name; }

std::string World::file(const Bytes& contents) {
  const std::string path = path_for("file-" + std::to_string(files_++));
  { const PlainFile created(path, O_WRONLY | O_CREAT | O_EXCL); }
  plain_write(path, 0, contents);
  return path;
}

std::string World::sparse_file(std::uint64_t size) {
  const std::string path = file({});
  plain_truncate(path, size);
  return path;
}

Bytes World::seen_by_device(const Mapping& mapping, ByteRange r, unsigned device) {
  const Mapping& results = results_.at(device);
  Bytes seen;
  while (seen.size() < r.size.value) {
    const ByteRange rest{r.first + ByteCount{seen.size()},
                         ByteCount{std::min<std::uint64_t>(kResultBytes / 4, r.size.value - seen.size())}};
    // Whole granules, so that they need not be filled and the counters tell of `mapping` alone.
    const std::uint64_t unit = results.granule().value;
    const ByteRange to{ByteOffset{0}, ByteCount{(rest.size.value + unit - 1) / unit * unit}};
    runtime_
        ->launch(kOneBlock, {.device = device, .name = {}}, CopyBytes{}, aprime::read(mapping, rest),
                 aprime::write(results, to))
        .wait();
    const Bytes more = read_bytes(results, {to.first, rest.size}, HostAccess::bounce);
    seen.insert(seen.end(), more.begin(), more.end());
  }
  return seen;
}

Bytes World::seen_by_device(const Mapping& mapping, unsigned device) {
  return seen_by_device(mapping, all_of(mapping), device);
}

void World::touch_on_device(const Mapping& mapping, ByteRange r, unsigned device) {
  runtime_
      ->launch({{1}, {1}}, {.device = device, .name = {}}, CountOthers{}, aprime::read(mapping, r),
               static_cast<std::size_t>(mapping.granule().value), Byte{0},
               aprime::write(results_.at(device), range(0, mapping.granule().value)))
      .wait();
}

void World::store_on_device(const Mapping& mapping, ByteRange r, Byte value, unsigned device) {
  runtime_
      ->launch(kOneBlock, {.device = device, .name = {}}, StoreEverywhere{}, aprime::read_write(mapping, r),
               value)
      .wait();
}

void World::increment_on_device(const Mapping& mapping, ByteRange r, unsigned device) {
  runtime_
      ->launch(kOneBlock, {.device = device, .name = {}}, IncrementBytes{}, aprime::read_write(mapping, r))
      .wait();
}

Stats Delta::get() const {
  Stats s = world_->runtime().stats();
  s.faults.device_read -= before_.faults.device_read;
  s.faults.device_write -= before_.faults.device_write;
  s.faults.host_read -= before_.faults.host_read;
  s.faults.host_write -= before_.faults.host_write;
  s.granules_filled -= before_.granules_filled;
  s.granules_copied_back -= before_.granules_copied_back;
  s.bytes_filled -= before_.bytes_filled;
  s.bytes_copied_back -= before_.bytes_copied_back;
  s.bytes_bounced -= before_.bytes_bounced;
  s.evictions -= before_.evictions;
  s.spurious_faults -= before_.spurious_faults;
  s.throttled -= before_.throttled;
  s.writeback_errors -= before_.writeback_errors;
  s.over_protections -= before_.over_protections;
  s.dirty_bytes -= before_.dirty_bytes;
  s.resident_bytes -= before_.resident_bytes;
  return s;
}

GranuleReport report(const Mapping& m, std::uint64_t granule) {
  return m.snapshot(range(granule * m.granule().value, 1)).at(0);
}

Bytes pattern(std::size_t size, unsigned seed) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::byte>((i * 7 + i / kPage * 31 + seed * 101) % 200 + 1);
  return bytes;
}

Bytes constant(std::size_t size, unsigned value) { return Bytes(size, static_cast<std::byte>(value)); }

Bytes with(Bytes bytes, std::size_t at, std::size_t size, unsigned value) {
  std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), size, static_cast<std::byte>(value));
  return bytes;
}

Bytes part(const Bytes& bytes, std::size_t at, std::size_t size) {
  const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  return {first, first + static_cast<std::ptrdiff_t>(size)};
}

Bytes incremented(Bytes bytes) {
  for (std::byte& b : bytes) b = static_cast<std::byte>(std::to_integer<unsigned>(b) + 1);
  return bytes;
}

Bytes read_bytes(const Mapping& m, ByteRange r, std::optional<HostAccess> how) {
  Bytes bytes(static_cast<std::size_t>(r.size.value));
  m.read(r.first, bytes, how);
  return bytes;
}

void write_bytes(const Mapping& m, std::uint64_t at, const Bytes& bytes, std::optional<HostAccess> how) {
  m.write(ByteOffset{at}, bytes, how);
}

Bytes seen_by_pointer(const Mapping& m, ByteRange r) {
  const auto host = m.host<const std::byte>().subspan(static_cast<std::size_t>(r.first.value),
                                                      static_cast<std::size_t>(r.size.value));
  // In this order, whatever memcpy's may be: it decides how many faults there are.
  for (std::size_t i = 0; i < host.size(); i += kPage) load_byte(&host[i]);
  return {host.begin(), host.end()};
}

Bytes plain_read(const std::string& path, std::uint64_t at, std::size_t size) {
  const PlainFile file(path, O_RDONLY);
  Bytes bytes(size);
  const ssize_t n = ::pread(file.get(), bytes.data(), size, static_cast<off_t>(at));
  if (n != static_cast<ssize_t>(size)) throw std::runtime_error("short read of " + path);
  return bytes;
}

Bytes plain_read(const std::string& path) {
  return plain_read(path, 0, static_cast<std::size_t>(plain_size(path)));
}

void plain_write(const std::string& path, std::uint64_t at, const Bytes& bytes) {
  const PlainFile file(path, O_WRONLY);
  const ssize_t n = ::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(at));
  if (n != static_cast<ssize_t>(bytes.size())) throw std::runtime_error("short write to " + path);
}

std::uint64_t plain_size(const std::string& path) { return std::filesystem::file_size(path); }

void plain_truncate(const std::string& path, std::uint64_t size) { std::filesystem::resize_file(path, size); }

Error error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return {Errc::ok, "nothing was thrown"};
}

int in_child(const std::function<void()>& child) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::alarm(20);
    try {
      child();
    } catch (...) {
      ::_exit(99);  // not on to the parent's tests, in the parent's directory
    }
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
  }
  return status;
}

bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 12000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

}  // namespace aprime::contract
