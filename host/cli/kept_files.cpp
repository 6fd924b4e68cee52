#include "host/cli/kept_files.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>

namespace aprime::cli {
namespace {

/// Each holds a few descriptors and a window of each device.
constexpr std::size_t kFilesMax = 64;
constexpr std::chrono::seconds kTick{1};

}  // namespace

KeptFiles::~KeptFiles() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  wakeup_.notify_all();
  if (watcher_.joinable()) watcher_.join();
}

void KeptFiles::keep(Mapping file, const std::string& path) {
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) return;
  // What goes is written home, which takes its time: not under the lock.
  std::list<Kept> going;
  const std::lock_guard lock(mutex_);
  const auto same = std::find_if(files_.begin(), files_.end(), [&](const Kept& kept) {
    return kept.device == found.st_dev && kept.inode == found.st_ino;
  });
  if (same != files_.end()) going.splice(going.end(), files_, same);
  files_.push_front({std::move(file), path, found.st_dev, found.st_ino});
  while (files_.size() > kFilesMax) going.splice(going.end(), files_, std::prev(files_.end()));
  if (!watcher_.joinable()) watcher_ = std::thread([this] { let_go_of_the_nameless(); });
}

void KeptFiles::let_go_of_the_nameless() {
  std::unique_lock lock(mutex_);
  while (!wakeup_.wait_for(lock, kTick, [this] { return is_ending_; })) {
    std::list<Kept> going;
    for (auto kept = files_.begin(); kept != files_.end();) {
      const auto next = std::next(kept);
      struct stat found {};
      const bool has_name = ::stat(kept->path.c_str(), &found) == 0 && found.st_dev == kept->device &&
                            found.st_ino == kept->inode;
      if (!has_name) going.splice(going.end(), files_, kept);
      kept = next;
    }
    lock.unlock();
    going.clear();
    lock.lock();
  }
}

}  // namespace aprime::cli
