#pragma once

#include <sys/types.h>

#include <span>

namespace aprime::os {

/// While it lives, what this thread creates in a file system belongs to `user` and `group`, and is allowed
/// only what they and `groups` may do. Changes nothing in a process that is not root's (it has no other
/// rights to give), nor for the identity that the process has anyway. At most one per thread.
class ActingAs {
 public:
  ActingAs(uid_t user, gid_t group, std::span<const gid_t> groups) noexcept;
  ~ActingAs();
  ActingAs(const ActingAs&) = delete;
  ActingAs& operator=(const ActingAs&) = delete;

  /// Whether this process would have to act for this caller.
  static bool is_needed(uid_t user, gid_t group) noexcept;

 private:
  bool is_acting_ = false;
};

/// Makes this thread create with exactly the mode it is told: from then on it has a file mode mask of its
/// own, which masks nothing.
void drop_mode_mask_of_thread() noexcept;
/// Whether that was allowed. Where it is refused (a container's filter) the mask of the process goes on to
/// apply.
bool has_own_mode_mask() noexcept;

/// While it lives, what this thread creates is masked by `mask`, or takes what its directory has for that by
/// a default ACL. Does nothing for a thread without a mask of its own.
class MaskedBy {
 public:
  explicit MaskedBy(mode_t mask) noexcept;
  ~MaskedBy();
  MaskedBy(const MaskedBy&) = delete;
  MaskedBy& operator=(const MaskedBy&) = delete;
};

}  // namespace aprime::os
