#pragma once

#include <cstddef>
#include <span>

#include "host/os/file.hpp"
#include "host/os/memory.hpp"

namespace aprime::device {

/// Zeroed memory that can be reached by two ways: by the alias always, and by a view whose protection
/// somebody else sets. So we fill and read what a device thread may not touch. Not inherited by fork().
class TwinMemory {
 public:
  /// `size`: in bytes, a multiple of the page size; memory is used as it is touched. \throws Error(resources)
  explicit TwinMemory(std::size_t size);

  std::span<std::byte> alias() const noexcept { return alias_.bytes(); }

  /// The second way, nothing permitted at first, between two guards that nothing is ever permitted in.
  struct View {
    os::Mapped guard_before;
    os::Mapped memory;
    os::Mapped guard_after;
  };
  /// `guard_bytes`: size of each guard, a multiple of the page size, or 0. \throws Error(resources)
  View map_view(std::size_t guard_bytes);

  /// Gives the memory of a range back; it reads as zeros afterwards, both ways. Page-granular.
  void clear(std::size_t at, std::size_t size) noexcept;

 private:
  os::Descriptor descriptor_;
  os::Mapped alias_;
};

}  // namespace aprime::device
