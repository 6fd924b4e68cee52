#pragma once

#include <string_view>

#include "host/coherence/transition_table.hpp"

namespace aprime::coherence {

/// Names for messages and traces. They equal the enumerators.
constexpr std::string_view name(Kind kind) noexcept {
  switch (kind) {
    case Kind::cpu_exclusive: return "cpu_exclusive";
    case Kind::home: return "home";
    case Kind::shared: return "shared";
    case Kind::device_exclusive: return "device_exclusive";
    case Kind::device_owned: return "device_owned";
    case Kind::mount_exclusive: return "mount_exclusive";
  }
  return "?";
}

constexpr std::string_view name(Step step) noexcept {
  switch (step) {
    case Step::protect: return "protect";
    case Step::copy_home: return "copy_home";
    case Step::revoke_others: return "revoke_others";
    case Step::revoke_devices: return "revoke_devices";
    case Step::drop: return "drop";
    case Step::fill: return "fill";
    case Step::adopt: return "adopt";
    case Step::grant_read: return "grant_read";
    case Step::grant_write: return "grant_write";
    case Step::release: return "release";
    case Step::io_home: return "io_home";
    case Step::io_copy: return "io_copy";
  }
  return "?";
}

constexpr std::string_view name(Event event) noexcept {
  switch (event) {
    case Event::read: return "read";
    case Event::write: return "write";
    case Event::overwrite: return "overwrite";
    case Event::io_read: return "io_read";
    case Event::io_write: return "io_write";
    case Event::bounce_read: return "bounce_read";
    case Event::bounce_write: return "bounce_write";
    case Event::writeback: return "writeback";
    case Event::evict: return "evict";
    case Event::discard: return "discard";
  }
  return "?";
}

constexpr std::string_view name(Who who) noexcept {
  switch (who) {
    case Who::nobody: return "nobody";
    case Who::cpu_without: return "cpu_without";
    case Who::cpu_with: return "cpu_with";
    case Who::device_without: return "device_without";
    case Who::device_with: return "device_with";
    case Who::mount_without: return "mount_without";
    case Who::mount_with: return "mount_with";
  }
  return "?";
}

}  // namespace aprime::coherence
