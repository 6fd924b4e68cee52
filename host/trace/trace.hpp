#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "aprime/units.hpp"

/// What a profiler sees of the engine: NVTX ranges and counters in the domain `aprime`.
///
/// A build without the NVTX headers (APRIME_ENABLE_NVTX) has none of it: every function here is then empty. A
/// build with them pays one load and one branch for each range as long as no tool is attached to the process.
/// NVTX decides that once, when its first function is called; the first Tracer does so on purpose, because
/// the search for a tool loads libraries, allocates and locks.
///
/// Ranges on fault paths begin and end inside a signal handler, on the stack of the thread that trapped. NVTX
/// itself only calls through a pointer there; what the tool does is the tool's. It may allocate and lock all
/// the same: the signal is the processor's answer to an access to mapped memory, so that it interrupts an
/// allocator, or the tool, only where these touch a mapping of aprime themselves. Hence: no heap in a
/// mapping, and no pointer into one as the message of a caller's own NVTX range.
namespace aprime::trace {

#ifndef APRIME_HAS_NVTX
#error "APRIME_HAS_NVTX must be 0 or 1, as in the library: CMakeLists.txt passes it on"
#endif
inline constexpr bool kIsBuiltIn = APRIME_HAS_NVTX != 0;

/// What a range is about. Each has a registered name and belongs to a category (nvtx.cpp).
enum class Kind : std::uint8_t {
  device_read_fault,
  device_write_fault,
  host_read_fault,
  host_write_fault,
  fill,       ///< payload: bytes copied from home to a device
  copy_back,  ///< payload: bytes copied from a device to home
  revoke,     ///< payload: bytes that one side loses a right on
  writeback,  ///< payload: bytes found dirty, to be copied home
  sync,       ///< writeback and what follows, until the bytes are on the disk
  lease,      ///< payload: bytes leased; until the lease is held
  launch,     ///< named as the kernel
};
inline constexpr std::size_t kKinds = 11;

/// An NVTX domain with everything registered in it.
class Domain;

/// The domain `aprime`, made if there is none yet; nullptr if no tool listens. All who ask share one, because
/// a tool may hold two domains of the same name for one; the last to give it back destroys it. Allocates,
/// locks.
std::shared_ptr<const Domain> open_domain();
void close_domain(std::shared_ptr<const Domain>& domain) noexcept;

// Both on one thread, properly nested, without a switch of fibers between them. Usable inside a signal
// handler.
void push(const Domain& domain, Kind kind, const ByteCount* payload, const char* name) noexcept;
void pop(const Domain& domain) noexcept;

/// Whether this build can count (older NVTX headers have ranges only).
bool has_counters() noexcept;
/// Returns the counter's number; 0 if nobody listens to counters. Allocates and locks.
std::uint64_t register_counter(const Domain& domain, const std::string& name, const char* description);
/// Usable inside a signal handler.
void sample(const Domain& domain, std::uint64_t counter, std::uint64_t value) noexcept;

/// Where the ranges of one runtime go. Thread-safe. Made before anything that can trap.
class Tracer {
 public:
  Tracer() {
    if constexpr (kIsBuiltIn) domain_ = open_domain();
  }
  ~Tracer() {
    if constexpr (kIsBuiltIn) close_domain(domain_);
  }
  Tracer(const Tracer&) = delete;
  Tracer& operator=(const Tracer&) = delete;

  /// nullptr if nobody listens.
  const Domain* domain() const noexcept {
    if constexpr (kIsBuiltIn) return domain_.get();
    return nullptr;
  }

 private:
  std::shared_ptr<const Domain> domain_;
};

/// A range from here to the end of the scope.
class [[nodiscard]] Range {
 public:
  Range(const Tracer& tracer, Kind kind) noexcept : Range(tracer.domain(), kind, nullptr, nullptr) {}
  Range(const Tracer& tracer, Kind kind, ByteCount payload) noexcept
      : Range(tracer.domain(), kind, &payload, nullptr) {}
  /// `name` instead of the kind's own. Copied by the tool.
  Range(const Tracer& tracer, Kind kind, const std::string& name) noexcept
      : Range(tracer.domain(), kind, nullptr, name.c_str()) {}
  ~Range() {
    if constexpr (kIsBuiltIn)
      if (domain_ != nullptr) pop(*domain_);
  }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  Range(const Domain* domain, [[maybe_unused]] Kind kind, [[maybe_unused]] const ByteCount* payload,
        [[maybe_unused]] const char* name) noexcept
      : domain_(domain) {
    if constexpr (kIsBuiltIn)
      if (domain_ != nullptr) push(*domain_, kind, payload, name);
  }

  const Domain* const domain_;
};

/// A number over time. Thread-safe. \pre the Tracer outlives it
class Counter {
 public:
  /// `description` must live as long.
  Counter(const Tracer& tracer, [[maybe_unused]] const std::string& name,
          [[maybe_unused]] const char* description)
      : domain_(tracer.domain()) {
    if constexpr (kIsBuiltIn)
      if (domain_ != nullptr) number_ = register_counter(*domain_, name, description);
  }

  /// Samples what `read` returns. Whoever changed the value last, the tool's last sample is the last value.
  template <class Read>
  void sample([[maybe_unused]] Read read) const noexcept {
    if constexpr (kIsBuiltIn) {
      if (number_ == 0) return;
      // Another thread may change and sample it between our look and our sample.
      for (std::uint64_t value = read(), now = 0;; value = now) {
        trace::sample(*domain_, number_, value);
        now = read();
        if (now == value) return;
      }
    }
  }

 private:
  const Domain* const domain_;
  std::uint64_t number_ = 0;
};

}  // namespace aprime::trace
