#include "host/mount/reclaimer.hpp"

#include <chrono>
#include <exception>
#include <thread>
#include <vector>

#include "host/mount/source.hpp"
#include "host/os/quiet_thread.hpp"

namespace aprime::mount {
namespace {

constexpr std::chrono::milliseconds kOutOfMemoryPause{10};

}  // namespace

Reclaimer::Reclaimer(InodeTable& inodes, Session& session)
    : inodes_(inodes), session_(session), thread_(os::start_quiet_thread([this] { run(); })) {}

Reclaimer::~Reclaimer() {
  inodes_.end_reclaim();
  thread_.join();
}

void Reclaimer::run() {
  InodeTable::Reclaimed what;
  std::vector<fuse_ino_t> ids;
  for (;;) {
    try {
      if (!inodes_.wait_to_reclaim(&what)) return;
      for (const auto& [directory, name] : what.missing)
        session_.forget_missing(Source::id_of(*directory), name);
      if (what.oldest.empty()) continue;
      ids.clear();
      for (const Inode* const inode : what.oldest) ids.push_back(Source::id_of(*inode));
      if (!session_.prune(ids)) return inodes_.end_reclaim();
    } catch (const std::exception&) {
      // No memory: what room is wanted for fails in its turn. It need not fail at once.
      std::this_thread::sleep_for(kOutOfMemoryPause);
    }
  }
}

}  // namespace aprime::mount
