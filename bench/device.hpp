#pragma once

#include <cstddef>

#include "aprime/aprime.hpp"
#include "bench/plain.hpp"

namespace aprime::bench {

/// One emulated device with one worker, and no background work: a figure is one thread's time, like its
/// floor.
inline RuntimeOptions quiet(DeviceKind kind, ByteCount granule, ByteCount device_memory) {
  return {.devices = {{.kind = kind, .memory = device_memory, .workers = 1}},
          .granule = granule,
          .dirty_age_max = std::chrono::milliseconds{0}};
}

inline ByteRange all_of(const Mapping& mapping) { return {ByteOffset{0}, mapping.size_bytes()}; }

/// Runs `body(data)` in one device thread and returns the seconds it took there, without the launch.
template <Right right, class Body>
double timed_on_device(Runtime& runtime, const LeaseArgument<right>& lease, Body body) {
  double seconds = 0;
  double* const out = &seconds;
  runtime
      .launch(
          Grid{}, {.device = 0, .name = "bench"},
          [out, body](LeasedBytes<right> bytes) {
            const double start = now();
            body(bytes.data());
            *out = now() - start;
          },
          lease)
      .wait();
  return seconds;
}

/// Adds all bytes, eight at a time. \pre size is a multiple of 64
inline std::uint64_t sum(const std::byte* data, std::size_t size) noexcept {
  const auto* words = reinterpret_cast<const std::uint64_t*>(data);
  std::uint64_t sums[8] = {};
  for (std::size_t i = 0; i < size / 8; i += 8)
    for (std::size_t lane = 0; lane < 8; ++lane) sums[lane] += words[i + lane];
  std::uint64_t total = 0;
  for (const std::uint64_t s : sums) total += s;
  return total;
}

/// Keeps the compiler from leaving out what made the value.
inline void keep(std::uint64_t value) noexcept { asm volatile("" : : "r"(value) : "memory"); }

}  // namespace aprime::bench
