#include "host/os/acting_as.hpp"

#include <grp.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace aprime::os {
namespace {

thread_local bool owns_mode_mask = false;

/// The system call itself, which changes this thread only; the C library's function changes all of them.
void set_groups_of_thread(std::span<const gid_t> groups) noexcept {
  static_cast<void>(::syscall(SYS_setgroups, groups.size(), groups.data()));
}

}  // namespace

bool ActingAs::is_needed(uid_t user, gid_t group) noexcept {
  return ::geteuid() == 0 && (user != 0 || group != ::getegid());
}

ActingAs::ActingAs(uid_t user, gid_t group, std::span<const gid_t> groups) noexcept {
  if (!is_needed(user, group)) return;
  is_acting_ = true;
  set_groups_of_thread(groups);
  ::setfsgid(group);
  ::setfsuid(user);
}

ActingAs::~ActingAs() {
  if (!is_acting_) return;
  ::setfsuid(::geteuid());
  ::setfsgid(::getegid());
  // Root needs none: its capabilities pass every check that a group would.
  set_groups_of_thread({});
}

void drop_mode_mask_of_thread() noexcept {
  owns_mode_mask = ::unshare(CLONE_FS) == 0;
  if (owns_mode_mask) ::umask(0);
}

bool has_own_mode_mask() noexcept { return owns_mode_mask; }

MaskedBy::MaskedBy(mode_t mask) noexcept {
  if (owns_mode_mask) ::umask(mask);
}

MaskedBy::~MaskedBy() {
  if (owns_mode_mask) ::umask(0);
}

}  // namespace aprime::os
