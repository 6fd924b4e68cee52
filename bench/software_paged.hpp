#pragma once

#include <functional>
#include <memory>
#include <string>

#include "bench/figure.hpp"
#include "bench/reference.hpp"

namespace aprime::bench {

/// A software-paged device, and how much of its figures is asked of it.
struct PagedDevice {
  DeviceKind kind;
  /// What the figures' keys begin with, and what their texts end with.
  std::string key;
  std::string suffix;
  /// What Reference::copy_in is.
  const char* copy_text;
  /// A power of two.
  ByteCount range;
  /// Over resident frames, in one launch.
  unsigned passes;
  unsigned blocks_per_processor;
  /// Of kernels that wait for each element: as many as have room.
  unsigned loading_blocks_per_processor;
  unsigned threads;
  int rounds;
  bool is_reported_only;
  /// Throws where the device is not there.
  std::function<void()> require;
  std::function<std::unique_ptr<Reference>(ByteCount, Runtime&)> make_reference;
};

void add_software_paged(Figures& figures, const PagedDevice& device);

}  // namespace aprime::bench
