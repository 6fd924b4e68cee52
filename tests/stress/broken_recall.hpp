#pragma once

#include <cstdint>

namespace aprime::stress {

/// How the invalidations are done by which the mount takes pages from programs. A test program is linked with
/// this and `--wrap=fuse_lowlevel_notify_inval_inode`.
enum class Recall : std::uint8_t {
  whole,
  /// Now and then without the first page.
  skips_a_page,
  /// Not a second time for a page that was asked for meanwhile.
  forgets_late_pages,
};
void set_recall(Recall how) noexcept;

}  // namespace aprime::stress
