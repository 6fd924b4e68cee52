#include "host/cli/host_traffic.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>

#include "aprime/error.hpp"
#include "host/cli/exit_code.hpp"

namespace aprime::cli {
namespace {

using namespace std::chrono_literals;

// Enough to meet the kernel on every granule of a small file, and little enough to leave it some CPU time.
constexpr auto kPause = 200us;
constexpr std::uint64_t kBytesMax = 16 * 1024;

class Descriptor {
 public:
  Descriptor(int fd, const std::string& what) : fd_(fd) {
    if (fd_ < 0) throw std::runtime_error(fmt::format("{}: cannot open: {}", what, std::strerror(errno)));
  }
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const noexcept { return fd_; }

 private:
  int fd_;
};

/// Random ranges of a file, of all sizes up to 16 KiB, at all alignments.
class RandomRanges {
 public:
  RandomRanges(ByteCount file_size, std::uint64_t seed) : file_size_(file_size.value), random_(seed) {}

  ByteRange next() {
    const std::uint64_t size = 1 + random_() % std::min(kBytesMax, file_size_);
    return {ByteOffset{random_() % (file_size_ - size + 1)}, ByteCount{size}};
  }

 private:
  std::uint64_t file_size_;
  std::mt19937_64 random_;
};

}  // namespace

HostTraffic::HostTraffic(std::span<const Mapping> files, std::span<const std::string> paths,
                         bool unchanging) {
  std::uint64_t seed = 1;
  for (std::size_t i = 0; i < files.size(); ++i) {
    const Mapping& file = files[i];
    if (file.size_bytes().value == 0) continue;
    start([this, &file, &path = paths[i], unchanging, n = seed++] { read_loop(file, path, unchanging, n); });
    if (file.access() == Access::read_write) start([this, &file, n = seed++] { write_loop(file, n); });
  }
}

HostTraffic::~HostTraffic() { join(); }

std::pair<std::uint64_t, std::uint64_t> HostTraffic::stop() {
  join();
  if (failure_) std::rethrow_exception(failure_);
  return {reads_, writes_};
}

template <class Body>
void HostTraffic::start(Body body) {
  threads_.emplace_back([this, body] {
    try {
      body();
    } catch (const Disagreement&) {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  });
}

void HostTraffic::join() noexcept {
  stop_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void HostTraffic::read_loop(const Mapping& file, const std::string& path, bool unchanging,
                            std::uint64_t seed) {
  const Descriptor plain(::open(path.c_str(), O_RDONLY | O_CLOEXEC), path);
  RandomRanges ranges(file.size_bytes(), seed);
  std::vector<std::byte> seen;
  std::vector<std::byte> expected;
  do {
    const ByteRange range = ranges.next();
    seen.resize(range.size.value);
    file.read(range.first, seen);
    ++reads_;
    if (unchanging) {
      expected.resize(range.size.value);
      const ssize_t got =
          ::pread(plain.get(), expected.data(), expected.size(), static_cast<off_t>(range.first.value));
      if (got == static_cast<ssize_t>(expected.size()) && seen != expected) {
        throw Disagreement(fmt::format("{}: the CPU and the plain file disagree on {} bytes at offset {}",
                                       path, range.size.value, range.first.value));
      }
    }
    std::this_thread::sleep_for(kPause);
  } while (!stop_);
}

void HostTraffic::write_loop(const Mapping& file, std::uint64_t seed) {
  // System calls on the pointer, because they answer EFAULT where a load would raise SIGBUS (another process
  // truncated the file); the kernel's failed access is then reported by the device.
  const Descriptor buffer(::memfd_create("aprime-host-traffic", MFD_CLOEXEC), "memfd");
  RandomRanges ranges(file.size_bytes(), seed);
  do {
    {
      const HostLease lease = file.host_lease(ranges.next(), Right::read_write);
      const std::span<std::byte> bytes = lease.bytes();
      const ssize_t out = ::pwrite(buffer.get(), bytes.data(), bytes.size(), 0);
      if (out > 0 && ::pread(buffer.get(), bytes.data(), static_cast<std::size_t>(out), 0) == out) ++writes_;
    }
    std::this_thread::sleep_for(kPause);
  } while (!stop_);
}

}  // namespace aprime::cli
