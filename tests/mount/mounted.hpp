#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>

#include "aprime/aprime.hpp"
#include "tests/os/child_process.hpp"

namespace aprime::test {

/// The granule of the runtime that serves the mount, and the files that most tests use.
inline constexpr std::uint64_t kGranule = 16384;
inline constexpr std::uint64_t kSize = 4 * kGranule;
inline constexpr ByteRange kWhole{ByteOffset{0}, ByteCount{kSize}};

constexpr ByteRange bytes(std::uint64_t at, std::uint64_t size) { return {ByteOffset{at}, ByteCount{size}}; }

/// A program in a process of its own that uses files of the mount: tests/mount/client.cpp.
class Client {
 public:
  /// Tells it to do something; does not wait.
  void begin(const std::string& command) { process_.tell(command); }
  /// Its answer to the command begun first.
  std::string end();
  std::string ask(const std::string& command) {
    begin(command);
    return end();
  }
  /// Does it, and fails the test if it did not succeed.
  void must(const std::string& command) { EXPECT_EQ(ask(command), "ok") << command; }
  /// The bytes that `command` (read or load) shows.
  std::string bytes(const std::string& command);

 private:
  ChildProcess process_{{APRIME_MOUNT_CLIENT}};
};

/// `size` bytes of one value, as Client::bytes shows them.
std::string all(std::size_t size, unsigned char value);

/// For the names of tests that run on several kinds of device.
std::string name_of_kind(const testing::TestParamInfo<DeviceKind>& info);

/// What a shell command (of /bin/sh) answered, its standard error with its output.
struct Answer {
  int status;
  std::string output;
};
Answer run_shell(const std::string& command);

/// A runtime with a mount. A deadlock ends the process, and the mount with it, instead of hanging the suite.
class Mounted {
 public:
  /// `device_memory` is for each device.
  explicit Mounted(DeviceKind kind, HostAccess how = HostAccess::adaptive,
                   ByteCount device_memory = ByteCount{1 << 20}, const MountOptions& options = {});
  ~Mounted();
  Mounted(const Mounted&) = delete;
  Mounted& operator=(const Mounted&) = delete;

  Runtime& runtime() noexcept { return *runtime_; }
  Mount& mount() noexcept { return mount_; }
  void mount_again() { mount_ = runtime_->mount(directory_ + "/source", directory_ + "/mounted"); }
  std::string at(const std::string& name) const { return directory_ + "/mounted/" + name; }
  std::string plain(const std::string& name) const { return directory_ + "/source/" + name; }
  /// Makes a file in the source.
  void make(const std::string& name, const std::string& content) const;
  std::string content(const std::string& name) const;
  /// Maps a file of the source.
  Mapping map(const std::string& name, Access access = Access::read_write) {
    return runtime_->map(plain(name), access);
  }

  /// The device stores `value` to every byte of a range.
  void device_stores(const Mapping& mapping, ByteRange range, unsigned char value);
  /// The device loads every byte of a range; returns how many are not `value`.
  unsigned device_misses(const Mapping& mapping, ByteRange range, unsigned char value);
  /// The sum of all bytes of a range, as the device loads them.
  std::uint64_t device_sum(const Mapping& mapping, ByteRange range);

 private:
  template <class T>
  T result();

  std::string directory_;
  std::unique_ptr<Runtime> runtime_;
  Mapping scratch_;
  Mount mount_;
  std::jthread watchdog_;
};

}  // namespace aprime::test
