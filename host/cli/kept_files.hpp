#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <list>
#include <mutex>
#include <string>
#include <thread>

#include "aprime/mapping.hpp"

namespace aprime::cli {

/// The files that runs have used lately: they stay mapped, so that what devices have of them need not be
/// copied home and back for the next run. A file whose name no longer leads to it is let go within a second
/// or so, for its disk space would not be free until then. Thread-safe.
class KeptFiles {
 public:
  KeptFiles() = default;
  /// Lets all of them go.
  ~KeptFiles();
  KeptFiles(const KeptFiles&) = delete;
  KeptFiles& operator=(const KeptFiles&) = delete;

  /// `path`: where the file is, by a path that does not lead through the mount.
  void keep(Mapping file, const std::string& path);

 private:
  struct Kept {
    Mapping file;
    std::string path;
    dev_t device;
    ino_t inode;
  };

  void let_go_of_the_nameless();

  std::mutex mutex_;
  std::condition_variable wakeup_;
  /// The newest first; guarded by mutex_, as all below.
  std::list<Kept> files_;
  bool is_ending_ = false;
  /// Runs from the first file on.
  std::thread watcher_;
};

}  // namespace aprime::cli
