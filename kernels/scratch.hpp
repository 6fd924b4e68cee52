#pragma once

#include <cstddef>
#include <span>

#include "aprime/mapping.hpp"
#include "aprime/runtime.hpp"
#include "aprime/units.hpp"

namespace aprime::kernels {

/// Memory that a workload shares with the device besides its files: a mapping of an unnamed file in RAM.
/// Results come back the way file bytes do, by leases and coherent reads, on every kind of device. Zero at
/// first.
class Scratch {
 public:
  /// \throws Error(resources)
  Scratch(Runtime& runtime, ByteCount size);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  const Mapping& mapping() const noexcept { return mapping_; }

  /// The first `out.size()` values.
  template <class T>
  void read(std::span<T> out) const {
    mapping_.read(ByteOffset{0}, std::as_writable_bytes(out));
  }

 private:
  int fd_;
  Mapping mapping_;
};

}  // namespace aprime::kernels
