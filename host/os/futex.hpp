#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace aprime::os {

/// Sleeps while `word` holds `expected`, at most `limit`. Returns for no reason at times; the caller looks
/// again. Usable inside a signal handler.
void futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                std::chrono::nanoseconds limit) noexcept;
void futex_wake_one(std::atomic<std::uint32_t>& word) noexcept;
void futex_wake_all(std::atomic<std::uint32_t>& word) noexcept;

}  // namespace aprime::os
