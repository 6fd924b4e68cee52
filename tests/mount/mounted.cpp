#include "tests/mount/mounted.hpp"

#include <sys/mount.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>
#include <stdexcept>

#include "tests/contract/kernels.hpp"

namespace aprime::test {
namespace {

constexpr std::chrono::seconds kTestMax{200};
constexpr ByteCount kScratch{4096};

/// Into the first element, in one thread.
struct SumBytes {
  APRIME_DEVICE void operator()(LeasedSpan<const unsigned char> bytes, LeasedSpan<std::uint64_t> sum) const {
    if (threadIdx.x != 0 || blockIdx.x != 0) return;
    std::uint64_t n = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) n += bytes[i];
    sum[0] = n;
  }
};

ByteRange whole(const Mapping& mapping) { return {ByteOffset{0}, mapping.size_bytes()}; }

}  // namespace

std::string Client::end() {
  std::string line;
  process_.listen(&line);
  return line;
}

std::string Client::bytes(const std::string& command) {
  const std::string answer = ask(command);
  return answer.starts_with("ok ") ? answer.substr(3) : answer;
}

std::string all(std::size_t size, unsigned char value) {
  std::array<char, 3> hex{};
  std::snprintf(hex.data(), hex.size(), "%02x", value);
  std::string text;
  for (std::size_t i = 0; i < size; ++i) text += hex.data();
  return text;
}

std::string name_of_kind(const testing::TestParamInfo<DeviceKind>& info) {
  return info.param == DeviceKind::emulated ? "faulting" : "strict";
}

Answer run_shell(const std::string& command) {
  Answer answer{-1, {}};
  FILE* const from = ::popen(("exec 2>&1; " + command).c_str(), "re");
  if (from == nullptr) throw std::runtime_error("cannot start a shell");
  std::array<char, 4096> part{};
  for (std::size_t n = 0; (n = std::fread(part.data(), 1, part.size(), from)) > 0;)
    answer.output.append(part.data(), n);
  const int status = ::pclose(from);
  answer.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return answer;
}

Mounted::Mounted(DeviceKind kind, HostAccess how, ByteCount device_memory, const MountOptions& mounting) {
  std::string name = std::filesystem::temp_directory_path() / "aprime-mount-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary directory");
  directory_ = std::filesystem::canonical(name);
  std::filesystem::create_directory(directory_ + "/source");
  std::filesystem::create_directory(directory_ + "/mounted");
  RuntimeOptions options;
  options.devices = {{.kind = kind, .memory = device_memory, .workers = 2}};
  options.granule = ByteCount{kGranule};
  options.host_access = how;
  options.dirty_age_max = std::chrono::milliseconds{0};
  runtime_ = std::make_unique<Runtime>(options);
  std::ofstream(directory_ + "/scratch") << std::string(kScratch.value, '\0');
  scratch_ = runtime_->map(directory_ + "/scratch", Access::read_write);
  watchdog_ = std::jthread([at = directory_ + "/mounted"](const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any wakeup;
    std::unique_lock lock(mutex);
    if (wakeup.wait_for(lock, stop, kTestMax, [&] { return stop.stop_requested(); }) || stop.stop_requested())
      return;
    // With the process goes its end of the connection: whoever waits for it is woken.
    std::fprintf(stderr, "the mount hangs\n");
    ::umount2(at.c_str(), MNT_DETACH);
    std::_Exit(1);
  });
  mount_ = runtime_->mount(directory_ + "/source", directory_ + "/mounted", mounting);
}

Mounted::~Mounted() {
  mount_.unmount();
  scratch_ = Mapping();
  runtime_.reset();
  watchdog_.request_stop();
  watchdog_.join();
  std::filesystem::remove_all(directory_);
}

void Mounted::make(const std::string& name, const std::string& content) const {
  std::ofstream(plain(name), std::ios::binary) << content;
}

std::string Mounted::content(const std::string& name) const {
  std::ostringstream text;
  text << std::ifstream(plain(name), std::ios::binary).rdbuf();
  return text.str();
}

void Mounted::device_stores(const Mapping& mapping, ByteRange range, unsigned char value) {
  runtime_->launch(Grid::cover(256, 64), contract::StoreEverywhere{}, read_write(mapping, range), value)
      .wait();
}

unsigned Mounted::device_misses(const Mapping& mapping, ByteRange range, unsigned char value) {
  runtime_
      ->launch(Grid::cover(1, 1), contract::CountOthers{}, read(mapping, range), std::size_t{1}, value,
               read_write(scratch_, whole(scratch_)))
      .wait();
  return result<unsigned>();
}

std::uint64_t Mounted::device_sum(const Mapping& mapping, ByteRange range) {
  runtime_->launch(Grid::cover(1, 1), SumBytes{}, read(mapping, range), read_write(scratch_, whole(scratch_)))
      .wait();
  return result<std::uint64_t>();
}

template <class T>
T Mounted::result() {
  T value{};
  scratch_.read(ByteOffset{0}, std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

}  // namespace aprime::test
