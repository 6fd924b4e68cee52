#pragma once

#include <cstddef>
#include <cstdint>

#include "tests/explorer/explorer.hpp"

// In place of the header of this name, as device_atomics.hpp: such a load is a step of an Explorer, and gives
// anything that it may on a GPU.

namespace aprime::detail {

/// Of what the World has in granules.
template <class T>
T load_unpinned(const std::byte* from) noexcept {
  static_assert(sizeof(T) == sizeof(std::uint64_t));
  explored::Explorer& explorer = explored::Explorer::running();
  explorer.step();
  const T value = explorer.memory().load_racing(*reinterpret_cast<const T*>(from));
  explorer.step();
  return value;
}

}  // namespace aprime::detail
