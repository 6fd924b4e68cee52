#include "tests/stress/world.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <stdexcept>

namespace aprime::stress {
namespace {

/// Without a single operation for this long the run hangs.
constexpr std::chrono::seconds kHangAfter{100};

}  // namespace

PlainFile::PlainFile(const std::string& path) : fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC)) {
  if (fd_ < 0) throw std::runtime_error("cannot open " + path);
}
PlainFile::~PlainFile() { ::close(fd_); }

std::uint64_t PlainFile::size() const {
  struct ::stat s {};
  if (::fstat(fd_, &s) != 0) throw std::runtime_error("fstat");
  return static_cast<std::uint64_t>(s.st_size);
}
void PlainFile::read(std::uint64_t at, void* into, std::size_t size) const {
  const ssize_t n = ::pread(fd_, into, size, static_cast<off_t>(at));
  if (n != static_cast<ssize_t>(size))
    throw std::runtime_error(fmt::format("a plain read of {} bytes at {} gives {}", size, at, n));
}
void PlainFile::write(std::uint64_t at, const void* from, std::size_t size) const {
  if (::pwrite(fd_, from, size, static_cast<off_t>(at)) != static_cast<ssize_t>(size))
    throw std::runtime_error("plain write");
}

World::World(const Config& config, std::uint64_t seed, const RunLength& length)
    : config_(config), seed_(seed), length_(length) {
  open();
}

World::~World() {
  programs_.clear();
  mount_.unmount();
  views_.clear();
  scratch_mappings_.clear();
  for (Mapping* mapping : {&offset_mapping_, &tail_mapping_, &base_mapping_}) *mapping = Mapping();
  runtime_.reset();
  for (const char* part : {"/source", "/mounted"}) {
    std::error_code ignored;
    std::filesystem::remove_all(directory_.path() + part, ignored);
  }
}

void World::open() {
  const std::uint64_t granule_words = config_.granule.value / 8;
  // Not a whole granule, not a whole page, but whole words.
  const std::uint64_t words_less = granule_words / 2 - 37;
  const std::uint64_t base_bytes = (config_.granules * granule_words - words_less) * 8;
  const std::uint64_t file_bytes = base_bytes + 3 * config_.granule.value + 1234;
  if (config_.programs == 0) {
    path_ = directory_.sparse("words", file_bytes);
  } else {
    for (const char* part : {"/source", "/mounted"})
      std::filesystem::create_directory(directory_.path() + part);
    const std::string name = directory_.sparse("source/words", file_bytes);
    // Programs rename it.
    path_ = directory_.path() + "/source/kept";
    std::filesystem::create_hard_link(name, path_);
  }
  plain_ = std::make_unique<PlainFile>(path_);
  runtime_ = std::make_unique<Runtime>(RuntimeOptions{.devices = config_.devices,
                                                      .granule = config_.granule,
                                                      .host_access = config_.host_access,
                                                      .dirty_bytes_max = ByteCount{8 * config_.granule.value},
                                                      .dirty_age_max = config_.dirty_age_max});
  for (const DeviceInfo& info : runtime_->devices()) hardware_paged_.push_back(info.hardware_paged);
  if (config_.programs > 0) mount_and_start_programs();

  const std::uint64_t offset = config_.granules / 3 * config_.granule.value;
  base_mapping_ = runtime_->map(path_, Access::read_write, {.length = ByteCount{base_bytes}});
  offset_mapping_ = runtime_->map(path_, Access::read_write,
                                  {.offset = ByteOffset{offset}, .length = ByteCount{base_bytes - offset}});
  tail_mapping_ = runtime_->map(path_, Access::read_write,
                                {.offset = ByteOffset{(config_.granules - 2) * config_.granule.value}});
  for (unsigned actor = kHosts; actor <= tail_actor(); ++actor)
    scratch_mappings_.push_back(runtime_->map(
        directory_.sparse(fmt::format("scratch-{}", actor), kScratchParts * scratch_part().value),
        Access::read_write));
  const BoardLayout layout{
      .shadow = {.seed = seed_,
                 .granules = config_.granules,
                 .granule_words = static_cast<std::uint32_t>(granule_words),
                 .words_less = static_cast<std::uint32_t>(words_less),
                 .direct_words = static_cast<std::uint32_t>(base_mapping_.direct_alignment().value / 8),
                 .hosts = kHosts + config_.programs,
                 .devices = device_count(),
                 .lanes = kLanes},
      .actors = program_actor(config_.programs),
      .operations = length_.operations,
      .calls = length_.calls,
      .loses_stores = config_.sabotage == Sabotage::lose_store};
  if (memory_ == nullptr) {
    board_ = std::make_unique<Board>(layout);
  } else {
    Board::layout_in(*memory_) = layout;
    for (const auto& program : programs_)
      if (const std::string wrong = program->prepare(); !wrong.empty()) throw std::runtime_error(wrong);
    board_ = std::make_unique<Board>(*memory_);
  }
  views_.push_back({&base_mapping_, base_mapping_.host<std::uint64_t>().data(), 0, base_bytes / 8});
  views_.push_back({&offset_mapping_, offset_mapping_.host<std::uint64_t>().data(), offset / 8,
                    (base_bytes - offset) / 8});
}

void World::mount_and_start_programs() {
  mount_ = runtime_->mount(directory_.path() + "/source", directory_.path() + "/mounted");
  memory_ = std::make_unique<SharedMemory>();
  for (unsigned p = 0; p < config_.programs; ++p)
    programs_.push_back(
        std::make_unique<Program>(config_.program, *memory_,
                                  Program::Arguments{.number = p,
                                                     .actor = program_actor(p),
                                                     .seed = seed_,
                                                     .has_tail = config_.tail_is_programs && p == 0,
                                                     .path = mount_.mountpoint() + "/words",
                                                     .other_name = mount_.mountpoint() + "/renamed",
                                                     .plain_path = path_}));
}

std::string World::run() {
  std::atomic<unsigned> active{0};
  std::vector<std::thread> actors;
  const auto start = [&](std::uint64_t stream, auto body) {
    active.fetch_add(1);
    actors.emplace_back([this, &active, stream, body] {
      try {
        body(Random(seed_, 100 + stream));
      } catch (const std::exception& e) {
        shadow().fail(fmt::format("actor {} got an error: {}", stream, e.what()));
      }
      active.fetch_sub(1);
    });
  };
  for (unsigned h = 0; h < kHosts; ++h) start(h, [this, h](Random r) { run_host_actor(*this, h, r); });
  for (unsigned d = 0; d < device_count(); ++d)
    start(device_actor(d), [this, d](Random r) {
      if (config_.planned)
        run_planned_actor(*this, d, r);
      else
        run_direct_actor(*this, d, r);
    });
  start(tail_actor(), [this](Random r) {
    if (config_.tail_is_programs)
      run_tail_marker(*this, r);
    else
      run_tail_actor(*this, r);
  });
  for (unsigned p = 0; p < config_.programs; ++p)
    start(program_actor(p), [this, p](Random) {
      if (std::string wrong = programs_[p]->work(); !wrong.empty()) shadow().fail(std::move(wrong));
    });
  watch(actors, active);
  last_stats_ = runtime_->stats();
  if (!shadow().failed()) {
    try {
      check_everything();
    } catch (const std::exception& e) {
      shadow().fail(fmt::format("at the end: {}", e.what()));
    }
  }
  return shadow().failure();
}

void World::watch(std::vector<std::thread>& actors, const std::atomic<unsigned>& active) {
  std::uint64_t last = 0;
  auto moved = std::chrono::steady_clock::now();
  while (active.load() != 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const auto now = std::chrono::steady_clock::now();
    if (const std::uint64_t done = operations_done(); done != last) {
      last = done;
      moved = now;
    } else if (now - moved > kHangAfter) {
      // Stuck threads cannot be joined: say what is known, and leave a core for the debugger.
      std::fprintf(
          stderr, "stress: %s with seed %llu hangs after %llu operations, %u actors are at work\n%s%s\n",
          config_.name.c_str(), static_cast<unsigned long long>(seed_), static_cast<unsigned long long>(last),
          active.load(), journal().summary(program_actor(0)).c_str(), shadow().failure().c_str());
      std::abort();
    }
  }
  for (std::thread& actor : actors) actor.join();
}

void World::check_words(Path path, const std::vector<std::uint64_t>& words) {
  for (std::uint64_t w = 0; w < words.size(); ++w)
    if (!shadow().check_exact(w, words[w], {tail_actor(), path})) return;
}

void World::check_everything() {
  std::vector<std::uint64_t> words(shadow().words());
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(words));
  base_mapping_.read(ByteOffset{0}, bytes, HostAccess::bounce);
  check_words(Path::read_bounce, words);
  base_mapping_.read(ByteOffset{0}, bytes, HostAccess::migrate);
  check_words(Path::read_migrate, words);
  for (std::uint64_t w = 0; w < words.size(); ++w)
    words[w] = std::atomic_ref(views_[0].host[w]).load(std::memory_order_acquire);
  check_words(Path::host_load, words);

  for (const auto& program : programs_)
    if (std::string wrong = program->look(); !wrong.empty()) shadow().fail(std::move(wrong));
  base_mapping_.sync();
  if (config_.sabotage == Sabotage::corrupt_file) {
    const std::uint64_t at = Random(seed_, 7).below(words.size());
    const std::uint64_t wrong = words[at] ^ 0x100;
    plain_->write(at * 8, &wrong, sizeof wrong);
  }
  plain_->read(0, words.data(), words.size() * 8);
  check_words(Path::plain_read, words);
  views_.clear();
  scratch_mappings_.clear();
  offset_mapping_.close();
  tail_mapping_.close();
  base_mapping_.close();
  runtime_->close();
  plain_->read(0, words.data(), words.size() * 8);
  check_words(Path::at_end, words);
}

std::string World::summary() {
  const Stats& s = last_stats_;
  return fmt::format(
      "{}: {} operations, {} of them system calls of programs\n{}  device faults {} read, {} write; host "
      "faults {} read, {} write; {} spurious\n"
      "  granules filled {}, copied back {}; bounced {} bytes; {} evictions; {} throttled\n",
      config_.name, operations_done(), calls_done(), journal().summary(program_actor(0)),
      s.faults.device_read, s.faults.device_write, s.faults.host_read, s.faults.host_write, s.spurious_faults,
      s.granules_filled, s.granules_copied_back, s.bytes_bounced, s.evictions, s.throttled);
}

}  // namespace aprime::stress
