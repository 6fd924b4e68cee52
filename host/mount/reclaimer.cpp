#include "host/mount/reclaimer.hpp"

#include <exception>
#include <vector>

#include "host/mount/source.hpp"
#include "host/os/quiet_thread.hpp"

namespace aprime::mount {

Reclaimer::Reclaimer(InodeTable& inodes, Session& session)
    : inodes_(inodes), session_(session), thread_(os::start_quiet_thread([this] { run(); })) {}

Reclaimer::~Reclaimer() {
  inodes_.end_reclaim();
  thread_.join();
}

void Reclaimer::run() {
  std::vector<const Inode*> oldest;
  std::vector<fuse_ino_t> ids;
  for (;;) {
    try {
      if (!inodes_.wait_to_reclaim(&oldest)) return;
      ids.clear();
      for (const Inode* const inode : oldest) ids.push_back(Source::id_of(*inode));
      if (!session_.prune(ids)) return inodes_.end_reclaim();
    } catch (const std::exception&) {
      // No memory: what room is wanted for fails in its turn.
    }
  }
}

}  // namespace aprime::mount
