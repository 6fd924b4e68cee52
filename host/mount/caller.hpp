#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "host/mount/fuse.hpp"
#include "host/os/acting_as.hpp"

namespace aprime::mount {

/// Who asks: whom a new object shall belong to, and what he masks of its mode.
class Caller {
 public:
  explicit Caller(fuse_req_t request) : context_(*::fuse_req_ctx(request)) {
    if (!os::ActingAs::is_needed(context_.uid, context_.gid)) return;
    std::array<gid_t, 64> few;
    const int count = ::fuse_req_getgroups(request, static_cast<int>(few.size()), few.data());
    if (count <= 0) return;  // not told: then the caller's first group has to do
    groups_.assign(few.begin(),
                   few.begin() + std::min<std::size_t>(few.size(), static_cast<std::size_t>(count)));
    if (groups_.size() == static_cast<std::size_t>(count)) return;
    groups_.resize(static_cast<std::size_t>(count));
    if (::fuse_req_getgroups(request, count, groups_.data()) < count) groups_.resize(few.size());
  }

  /// Runs `act` with the caller's rights and mask.
  template <class Fn>
  int as_caller(Fn&& act) const noexcept {
    const os::ActingAs acting(context_.uid, context_.gid, groups_);
    const os::MaskedBy masked(context_.umask);
    return act();
  }

 private:
  const fuse_ctx context_;
  std::vector<gid_t> groups_;
};

}  // namespace aprime::mount
