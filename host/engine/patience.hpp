#pragma once

#include <cstdint>

#include "host/device/device.hpp"

namespace aprime::engine {

/// How a transaction treats granules that are taken or pinned.
enum class Patience : std::uint8_t {
  wait,  ///< waits for them
  /// Waits for them, but not for one that is being recalled from a mount: that one is left alone. For those
  /// whom the recall may be waiting for.
  unless_recalled,
  /// Leaves them as they are (background work must not queue behind a long launch), and waits for threads of
  /// a running kernel only. Who wants them pinned is told so by EAGAIN.
  skip,
  /// Leaves them as they are, too, and gives threads of a running kernel only a moment to let go: they may
  /// wait for the caller. For those who have other granules meanwhile. EAGAIN is the answer then.
  briefly,
  /// As `briefly`, without the moment. For those who can take another granule instead.
  ask_once,
  /// As `briefly`, and threads of a running kernel are not even asked. For those who may wait for nobody.
  at_once,
};
constexpr device::Asking asking(Patience p) noexcept {
  switch (p) {
    case Patience::briefly: return device::Asking::for_a_moment;
    case Patience::ask_once: return device::Asking::once;
    case Patience::at_once: return device::Asking::not_at_all;
    default: return device::Asking::until_they_have;
  }
}
constexpr bool leaves_busy_alone(Patience p) noexcept {
  return p == Patience::skip || asking(p) != device::Asking::until_they_have;
}

}  // namespace aprime::engine
