#pragma once

#include <atomic>
#include <forward_list>
#include <mutex>
#include <string>

#include "host/os/file.hpp"
#include "host/os/gate.hpp"
#include "host/os/store_window.hpp"

namespace aprime::os {

/// What a File is made of. Descriptors are added and never replaced, so that an operation may go on with the
/// one that it started with.
struct File::State {
  std::string path;
  FileIdentity identity;
  ByteCount direct_alignment{kPageBytes};

  /// The descriptor for I/O through the page cache, for direct I/O (-1: refused), and whether both can write.
  std::atomic<int> fd{-1};
  std::atomic<int> direct_fd{-1};
  std::atomic<Access> access{Access::read};
  /// The newest of `aliases`, null while there is none.
  std::atomic<const Mapped*> alias{nullptr};
  /// Likewise of `windows`; and whether there can be none.
  std::atomic<StoreWindow*> window{nullptr};
  std::atomic<bool> has_no_window{false};

  /// Shared by writes, which look at the end of the file first, and held alone to move the end: a write that
  /// began below an end that is cut off meanwhile would grow the file again.
  Gate end_gate;

  /// Serialises what adds to the lists below; taken for no I/O.
  std::mutex mutex;
  std::forward_list<Descriptor> descriptors;
  std::forward_list<Mapped> aliases;
  std::forward_list<StoreWindow> windows;

  /// Keeps `fd` for the life of the file and returns it.
  int keep(Descriptor fd_to_keep);
  /// Goes on with `fd`, open for reading and writing.
  void write_by(Descriptor fd_to_keep);
  /// Opens the O_DIRECT descriptor of the same rights as `fd`; leaves direct I/O off where it is refused.
  void open_direct();
};

}  // namespace aprime::os
