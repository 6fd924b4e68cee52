#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "host/os/memory.hpp"
#include "host/os/trap.hpp"

namespace aprime::os {

/// A file as memory to store to, by threads that do not know whether the kernel has, or finds, a page for
/// what they store. Elsewhere that is SIGBUS and the end of the process; here it is an answer.
class StoreWindow final : private TrapTarget {
 public:
  /// `memory`: a shared mapping that may be stored to. \throws Error(resources)
  explicit StoreWindow(Mapped memory);

  std::size_t size() const noexcept { return memory_.size(); }

  /// Whether all pages of the range are in the page cache: stores to others would read them from the disk
  /// first. \pre the range is in the window
  bool is_resident(std::uint64_t at, std::size_t size) const noexcept;
  /// Stores bytes. False if the kernel refused: some of them may be there, and what is wrong (the file has
  /// become shorter, its disk is full, or cannot be read) only write(2) can say. \pre likewise
  bool store(std::uint64_t at, std::span<const std::byte> from) noexcept;
  /// Has the kernel write those pages of the range once more that are in the page cache. Changes no byte, and
  /// takes none from whoever stores meanwhile. Returns where the kernel refused, or the end of the range.
  /// \pre likewise, and `at` begins a page
  std::uint64_t dirty_again(std::uint64_t at, std::size_t size) noexcept;

 private:
  Answer on_trap(const Trap& trap) noexcept override;

  Mapped memory_;
  TrapRegistration traps_;  // ends before the memory
};

}  // namespace aprime::os
