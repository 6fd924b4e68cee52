#include "host/mount/evictor.hpp"

#include <chrono>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "host/os/futex.hpp"
#include "host/os/quiet_thread.hpp"

namespace aprime::mount {
namespace {

/// For the kernel to tell what it has forgotten.
constexpr std::chrono::milliseconds kPause{1};
/// A lost wake-up cannot happen; should the kernel forget one, this is what it costs.
constexpr std::chrono::seconds kLookAgain{1};

}  // namespace

Evictor::Evictor(Source& source, fuse_session& session)
    : source_(source), session_(session), thread_(os::start_quiet_thread([this] { run(); })) {}

void Evictor::stop() noexcept {
  is_stopping_.store(true);
  source_.crowded().store(1);
  os::futex_wake_all(source_.crowded());
  if (thread_.joinable()) thread_.join();
}

void Evictor::run() noexcept {
  for (;;) {
    os::futex_wait(source_.crowded(), 0, kLookAgain);
    if (is_stopping_.load()) return;
    if (source_.crowded().load() == 0) continue;
    try {
      for (const std::shared_ptr<Inode>& inode : source_.to_evict()) evict(*inode);
    } catch (const std::bad_alloc&) {
      // Again when somebody asks again.
    }
    std::this_thread::sleep_for(kPause);
    source_.crowded().store(0);
    if (is_stopping_.load()) return;
  }
}

void Evictor::evict(const Inode& inode) noexcept {
  if (is_stopping_.load()) return;
  fuse_ino_t parent = 0;
  std::string name;
  if (!source_.find_name(inode, &parent, &name)) return;
  // Not by a worker: it waits for requests in the directory. If the name leads elsewhere by now, that is
  // looked up once more.
  static_cast<void>(::fuse_lowlevel_notify_inval_entry(&session_, parent, name.c_str(), name.size()));
}

}  // namespace aprime::mount
