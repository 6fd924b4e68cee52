#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "aprime/aprime.hpp"
#include "host/os/syscalls.hpp"
#include "tests/contract/contract.hpp"
#include "tests/fault/shadow.hpp"

namespace aprime::fault {

using contract::Bytes;
using contract::Personality;

/// One file, what it may hold, and the mappings of it.
struct ModelFile {
  std::string path;
  Shadow shadow;
  /// Several holders of one file; an entry without a value could not be made, or was closed.
  std::vector<std::optional<Mapping>> holders{};
  /// How many errors of the file each holder has heard of.
  std::vector<std::uint64_t> heard{};
  /// Whose sync failed may have one more to hear of: the flusher's, right behind.
  std::vector<bool> may_hear_more{};
};

/// A run through all that the library does, in which any system call may fail: each step either succeeds and
/// leaves the right bytes, or reports the failure sensibly and leaves bytes that are old or new. Failures are
/// collected as text.
class Scenario {
 public:
  struct Options {
    Personality personality;
    bool with_flusher = false;
    /// Close everything while calls may still fail, instead of after.
    bool close_early = false;
    HostAccess host_access = HostAccess::adaptive;
  };
  Scenario(const Options& options, const std::string& directory);
  ~Scenario();

  /// `plan` is in force, or does not fail anything.
  void run(const os::sys::FaultPlan& plan);
  /// No plan is in force any more: everything must work again, and nothing that was stored may be missing.
  void recover();

  const std::vector<std::string>& defects() const noexcept { return defects_; }
  /// How many steps reported a failure.
  unsigned failed_steps() const noexcept { return failed_steps_; }

 private:
  enum class Outcome : std::uint8_t { done, failed };

  // steps.cpp: one step each.
  Outcome attempt(const char* doing, const std::function<void()>& step);
  void map_all();
  void map_one(ModelFile& file, std::size_t holder);
  void fill_on_device(ModelFile& file, ByteRange range, unsigned device);
  void store_on_device(ModelFile& file, ByteRange range, unsigned device);
  void copy_on_device(ModelFile& from, ByteRange range, ModelFile& to, unsigned device);
  void copy_on_demand(ModelFile& from, ByteRange range, ModelFile& to, unsigned device);
  void read(ModelFile& file, ByteRange range, std::optional<HostAccess> how);
  void write(ModelFile& file, ByteRange range, std::optional<HostAccess> how);
  void read_direct(ModelFile& file, ByteRange range);
  void write_direct(ModelFile& file, ByteRange range);
  void load_by_pointer(ModelFile& file, ByteRange range);
  void store_by_pointer(ModelFile& file, ByteRange range);
  void store_by_lease(ModelFile& file, ByteRange range);
  void move_about(ModelFile& file);
  void discard(ModelFile& file, ByteRange range);
  void resize(ModelFile& file, std::size_t size);
  void sync(ModelFile& file, std::size_t holder, ByteRange range);
  void close(ModelFile& file, std::size_t holder);
  void wait_for_flusher();

  void see(ModelFile& file, const char* doing, std::uint64_t at, const Bytes& seen);
  void see_plain(ModelFile& file, const char* doing, ByteRange range);
  Mapping* holder_of(ModelFile& file);
  unsigned next_value() noexcept { return value_ = value_ % (Shadow::kValues - 1) + 1; }
  void judge(const char* doing, Errc code, int system_error, const std::string& message,
             const std::string& path, ByteOffset offset);
  void defect(const char* doing, const std::string& what);

  const Options options_;
  os::sys::FaultPlan plan_;
  bool recovering_ = false;
  unsigned value_ = 7;
  unsigned failed_steps_ = 0;
  std::vector<std::string> defects_;
  ModelFile big_;
  ModelFile small_;
  std::optional<Runtime> runtime_;
};

/// What a failed call may be reported as.
bool is_sensible(os::sys::Call call, int system_error, Errc code);

}  // namespace aprime::fault
