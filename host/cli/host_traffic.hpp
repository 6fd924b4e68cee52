#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "aprime/mapping.hpp"

namespace aprime::cli {

/// CPU threads that read and write files while a kernel works on them (--concurrent-host).
///
/// For each file there is a reader, which calls `Mapping::read` on random ranges; where the workload leaves
/// the file alone, it compares what it gets with what plain read(2) gets. For each file mapped for writing
/// there is a writer, which takes a host lease on a random range and stores the bytes that it finds there
/// again, by system calls on the mapping's pointer: the device loses its copies, and must wait for those
/// stores and see them. No byte changes by this, so results stay what they are; a stale or a lost copy on
/// either side would show in them. Each thread makes at least one access, however short the workload is.
class HostTraffic {
 public:
  /// `paths`: of the files, for plain read(2). `unchanging`: the workload stores nothing. Both must outlive
  /// it.
  HostTraffic(std::span<const Mapping> files, std::span<const std::string> paths, bool unchanging);
  ~HostTraffic();
  HostTraffic(const HostTraffic&) = delete;
  HostTraffic& operator=(const HostTraffic&) = delete;

  /// Ends the threads. \throws Disagreement, or Error if an access failed. Returns how many reads and writes
  /// there were.
  std::pair<std::uint64_t, std::uint64_t> stop();

 private:
  void read_loop(const Mapping& file, const std::string& path, bool unchanging, std::uint64_t seed);
  void write_loop(const Mapping& file, std::uint64_t seed);
  template <class Body>
  void start(Body body);
  void join() noexcept;

  std::atomic<bool> stop_ = false;
  std::atomic<std::uint64_t> reads_ = 0;
  std::atomic<std::uint64_t> writes_ = 0;
  std::mutex mutex_;
  /// A disagreement or, if there is none, the first failure; guarded by mutex_.
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

}  // namespace aprime::cli
