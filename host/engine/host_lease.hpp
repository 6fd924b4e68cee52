#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "host/engine/mapping_state.hpp"

namespace aprime::detail {

/// Granules of a mapping that are pinned for the CPU.
struct HostLeaseState {
  HostLeaseState(std::shared_ptr<engine::MappingState> m, GranuleRange g, std::span<std::byte> b)
      : mapping(std::move(m)), granules(g), bytes(b) {}
  ~HostLeaseState();
  HostLeaseState(const HostLeaseState&) = delete;
  HostLeaseState& operator=(const HostLeaseState&) = delete;

  std::shared_ptr<engine::MappingState> mapping;
  GranuleRange granules;
  std::span<std::byte> bytes;
};

}  // namespace aprime::detail
