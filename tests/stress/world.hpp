#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "aprime/aprime.hpp"
#include "tests/os/temporary_file.hpp"
#include "tests/stress/board.hpp"
#include "tests/stress/program.hpp"

namespace aprime::stress {

/// Ways to go wrong on purpose, to show that the test would notice.
enum class Sabotage : std::uint8_t {
  none,
  /// An owner now and then publishes a store that it did not make.
  lose_store,
  /// A block is now and then written by two calls.
  tear_block,
  /// At the end, when everything is synced and clean, one bit of the file is changed past aprime.
  corrupt_file,
};

/// What a run is made of.
struct Config {
  std::string name;
  std::vector<DeviceOptions> devices;
  ByteCount granule;
  unsigned granules;
  HostAccess host_access;
  std::chrono::milliseconds dirty_age_max;
  Sabotage sabotage = Sabotage::none;
  /// How many programs use the file too, in processes of their own, on a mount; and which program that is.
  unsigned programs = 0;
  const char* program = nullptr;
  /// The tail belongs to the first of them instead of a thread here.
  bool tail_is_programs = false;
  /// Kernels follow plans, and need not reach the model.
  bool planned = false;
};

/// How much a run does at least.
struct RunLength {
  std::uint64_t operations;
  /// Of programs, among them: see BoardLayout.
  std::uint64_t calls = 0;
};

/// A descriptor of the file that knows nothing of aprime.
class PlainFile {
 public:
  explicit PlainFile(const std::string& path);
  ~PlainFile();
  PlainFile(const PlainFile&) = delete;
  PlainFile& operator=(const PlainFile&) = delete;

  std::uint64_t size() const;
  /// \pre the range lies within the file
  void read(std::uint64_t at, void* into, std::size_t size) const;
  void write(std::uint64_t at, const void* from, std::size_t size) const;

 private:
  int fd_;
};

/// A mapping of part of the file, as actors use it: its words are numbered as in the file.
struct View {
  const Mapping* mapping;
  std::uint64_t* host;
  std::uint64_t first_word;
  std::uint64_t words;

  ByteRange range(std::uint64_t word, std::uint64_t count) const {
    return {ByteOffset{(word - first_word) * 8}, ByteCount{count * 8}};
  }
  ByteOffset at(std::uint64_t word) const { return range(word, 0).first; }
};

/// One run: a file, a runtime, the actors that work on it at once, and the model that judges what they see.
///
/// The file has a base, whose words the shadow gives out to all actors, and a tail behind it, which belongs
/// to one actor that truncates, grows and punches it. The base ends inside a granule, so that this one is
/// shared too.
class World {
 public:
  static constexpr unsigned kHosts = 3;
  static constexpr unsigned kLanes = 8;
  static constexpr unsigned kScratchParts = 4;
  static constexpr std::uint64_t kScratchPartMin = 16 * 1024;

  World(const Config& config, std::uint64_t seed, const RunLength& length);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  /// Runs all actors, then checks that every word is exactly what it must be. Returns the failure, or
  /// nothing.
  std::string run();
  /// What was done, in words.
  std::string summary();
  Stats stats() const { return last_stats_; }
  std::uint64_t operations_done() const noexcept { return board_->operations_done(); }
  std::uint64_t calls_done() const noexcept { return board_->calls_done(); }

  // For the actors.
  const Config& config() const noexcept { return config_; }
  Board& board() noexcept { return *board_; }
  Shadow& shadow() noexcept { return board_->shadow(); }
  Journal& journal() noexcept { return board_->journal(); }
  Runtime& runtime() noexcept { return *runtime_; }
  const PlainFile& plain() const noexcept { return *plain_; }
  const std::string& path() const noexcept { return path_; }
  Mapping& tail() noexcept { return tail_mapping_; }
  /// For a device's actor, and for the tail's, to tell its kernels something, and to be told: kScratchParts
  /// parts of whole granules. Nobody else uses it.
  const Mapping& scratch(unsigned actor) const noexcept { return scratch_mappings_[actor - kHosts]; }
  ByteCount scratch_part() const noexcept {
    return ByteCount{std::max(config_.granule.value, kScratchPartMin)};
  }
  std::uint64_t tail_first_byte() const noexcept { return board_->shadow().words() * 8; }
  std::span<const View> views() const noexcept { return views_; }
  bool hardware_paged(unsigned device) const noexcept { return hardware_paged_[device]; }
  unsigned device_count() const noexcept { return static_cast<unsigned>(config_.devices.size()); }
  unsigned device_actor(unsigned device) const noexcept { return kHosts + device; }
  unsigned tail_actor() const noexcept { return kHosts + device_count(); }
  unsigned program_actor(unsigned program) const noexcept { return tail_actor() + 1 + program; }
  std::uint64_t granule_bytes() const noexcept { return config_.granule.value; }

  /// Adds to the operations done; false when the run is over.
  bool go_on(std::uint64_t done) noexcept { return board_->go_on(done); }
  /// Returns when the programs, if there are any, have made that many system calls for each of an actor's
  /// first n steps: actors whose words are mostly at hand would hardly let them have a turn.
  void take_turn(std::uint64_t n, std::uint64_t calls_per_step) noexcept {
    board_->await_calls(n * calls_per_step);
  }

 private:
  void open();
  void mount_and_start_programs();
  void watch(std::vector<std::thread>& actors, const std::atomic<unsigned>& active);
  void check_everything();
  void check_words(Path path, const std::vector<std::uint64_t>& words);

  const Config config_;
  const std::uint64_t seed_;
  const RunLength length_;
  test::TemporaryDirectory directory_;
  std::string path_;
  std::unique_ptr<PlainFile> plain_;
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<SharedMemory> memory_;  // if there are programs
  std::unique_ptr<Board> board_;
  Mount mount_;
  std::vector<std::unique_ptr<Program>> programs_;
  Mapping base_mapping_;
  Mapping offset_mapping_;
  Mapping tail_mapping_;
  std::vector<Mapping> scratch_mappings_;
  std::vector<View> views_;
  std::vector<bool> hardware_paged_;
  Stats last_stats_;
};

// The actors. Each runs until the world says that it is over, and reports what goes wrong to the shadow.
void run_host_actor(World& world, unsigned number, Random random);
void run_direct_actor(World& world, unsigned device, Random random);
void run_planned_actor(World& world, unsigned device, Random random);
void run_tail_actor(World& world, Random random);

/// Makes granules of the tail dirty on devices, by words that are the devices' (kTailMarkEvery), while a
/// program changes its size.
void run_tail_marker(World& world, Random random);

}  // namespace aprime::stress
