#include "host/os/futex.hpp"

// Nobody is woken by the time that a sleep may take at most: a wake-up that is lost is seen.

namespace aprime::os {

void futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                std::chrono::nanoseconds) noexcept {
  // The kernel looks at what is newest. That is the step; nothing comes between it and the sleep.
  if (const_cast<std::atomic<std::uint32_t>&>(word).fetch_add(0, std::memory_order_relaxed) == expected)
    explored::Explorer::running().block_on(&word);
}
void futex_wake_one(std::atomic<std::uint32_t>& word) noexcept {
  if (!explored::Explorer::is_running()) return;
  explored::Explorer::running().step();
  explored::Explorer::running().wake_one(&word);
}
void futex_wake_all(std::atomic<std::uint32_t>& word) noexcept {
  if (!explored::Explorer::is_running()) return;
  explored::Explorer::running().step();
  explored::Explorer::running().wake_all(&word);
}

}  // namespace aprime::os
