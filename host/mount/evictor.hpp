#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

#include "host/mount/fuse.hpp"
#include "host/mount/source.hpp"

namespace aprime::mount {

/// Keeps what the kernel knows of the tree within what this process may have open: each object is a
/// descriptor here until the kernel forgets it, and unasked the kernel does that only when it is short of
/// memory. Those that were looked up least recently go. One that a program uses stays, and so does a
/// directory: to take that one away would take away what is mounted below it.
class Evictor {
 public:
  /// Both outlive it. \throws std::system_error if no thread can be made
  Evictor(Source& source, fuse_session& session);
  /// As `stop`.
  ~Evictor() { stop(); }
  Evictor(const Evictor&) = delete;
  Evictor& operator=(const Evictor&) = delete;

  /// Ends it. \pre requests are served still: it may be waiting for one
  void stop() noexcept;

 private:
  void run() noexcept;
  void evict(const Inode& inode) noexcept;

  Source& source_;
  fuse_session& session_;
  std::atomic<bool> is_stopping_{false};
  std::thread thread_;
};

}  // namespace aprime::mount
