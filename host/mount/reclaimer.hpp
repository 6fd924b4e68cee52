#pragma once

#include <thread>

#include "host/mount/inode_table.hpp"
#include "host/mount/session.hpp"

namespace aprime::mount {

/// Has the kernel forget objects that nobody uses, those first that were looked up longest ago, where the
/// table of them wants room: it would keep all that it ever saw until memory runs short, and descriptors run
/// short long before. So would it keep directories for entries that they have not. Where it cannot be told so
/// (before Linux 6.18), does nothing: it could be made to drop the names of objects, but drops those that are
/// in use, too. It waits for requests about a directory before it drops one of its missing entries, and those
/// may wait for room here, but not for long.
class Reclaimer {
 public:
  /// Both must outlive it. \throws std::system_error if no thread can be made
  Reclaimer(InodeTable& inodes, Session& session);
  ~Reclaimer();
  Reclaimer(const Reclaimer&) = delete;
  Reclaimer& operator=(const Reclaimer&) = delete;

 private:
  void run();

  InodeTable& inodes_;
  Session& session_;
  std::thread thread_;
};

}  // namespace aprime::mount
