#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "host/engine/mapping_state.hpp"

namespace aprime::detail {

/// Granules of a mapping that are pinned for the CPU, and their pages in its view, which keep their rights.
struct HostLeaseState {
  /// Nothing is pinned yet.
  HostLeaseState(std::shared_ptr<engine::MappingState> m, std::shared_ptr<engine::HostView> v,
                 GranuleRange range, std::span<std::byte> b)
      : mapping(std::move(m)),
        view(std::move(v)),
        held(view->to_hold(range)),
        pinned{range.first, GranuleCount{0}},
        bytes(b) {
    view->hold(held);
    mapping->begin_host_lease();
  }
  ~HostLeaseState();
  HostLeaseState(const HostLeaseState&) = delete;
  HostLeaseState& operator=(const HostLeaseState&) = delete;

  std::shared_ptr<engine::MappingState> mapping;
  std::shared_ptr<engine::HostView> view;
  engine::HostView::Held held;
  GranuleRange pinned;
  std::span<std::byte> bytes;
};

}  // namespace aprime::detail
