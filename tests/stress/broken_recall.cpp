#include "tests/stress/broken_recall.hpp"

#include <atomic>
#include <utility>

#include "host/mount/fuse.hpp"

namespace aprime::stress {
namespace {

std::atomic<Recall> chosen{Recall::whole};
std::atomic<unsigned> recalls{0};

/// A second recall of the same range by the same thread is, as a rule, of late pages.
struct Last {
  fuse_ino_t inode = 0;
  off_t at = 0;
  off_t size = 0;
  bool operator==(const Last&) const = default;
};
thread_local Last last;

}  // namespace

void set_recall(Recall how) noexcept { chosen.store(how); }

}  // namespace aprime::stress

using aprime::stress::Recall;

extern "C" {

int __real_fuse_lowlevel_notify_inval_inode(fuse_session*, fuse_ino_t, off_t, off_t);

// The linker makes this of the library's calls.
int __wrap_fuse_lowlevel_notify_inval_inode(fuse_session* session, fuse_ino_t inode, off_t at, off_t size) {
  constexpr off_t kPage = 4096;
  const Recall how = aprime::stress::chosen.load();
  const aprime::stress::Last now{inode, at, size};
  if (how == Recall::forgets_late_pages && std::exchange(aprime::stress::last, now) == now) return 0;
  const bool skips = how == Recall::skips_a_page && aprime::stress::recalls.fetch_add(1) % 16 == 15;
  const off_t skipped = skips ? kPage : 0;
  if (size <= skipped) return 0;
  return __real_fuse_lowlevel_notify_inval_inode(session, inode, at + skipped, size - skipped);
}

}  // extern "C"
