#include "aprime/detail/page_access.hpp"
#include "aprime/kernel.hpp"
#include "host/device/kernel_stop.hpp"
#include "host/os/quiet_thread.hpp"
#include "tests/explorer/explorer.hpp"
#include "tests/paging/world.hpp"

// What the library's code calls of an executor and of the system, for explored threads: each thread of a
// kernel is a warp of one lane, and a block.

namespace aprime::detail {

std::uint64_t warp_rendezvous(WarpOp op, unsigned mask, std::uint64_t value, unsigned, unsigned) noexcept {
  switch (op) {
    case WarpOp::ballot:
    case WarpOp::any:
    case WarpOp::all: return value != 0 ? mask : 0;
    case WarpOp::match_any: return mask;
    default: return value;
  }
}

unsigned converged_lanes() noexcept { return 1; }

void give_way() noexcept { explored::Explorer::running().sleep(); }
void sleep_thread(unsigned) noexcept { explored::Explorer::running().sleep(); }

}  // namespace aprime::detail

namespace aprime::device {

void stop_current_kernel(const KernelFault&) noexcept {
  explored::World::current()->kernel_thread_has_ended();
  explored::Explorer::running().end_thread();
}

// Memory traps nobody here.
bool on_device_thread() noexcept { return false; }
void redirect_to_stop(ucontext_t&, const KernelFault&) noexcept {}

}  // namespace aprime::device

namespace aprime::os {

std::thread start_quiet_thread(std::function<void()> body) { return std::thread(std::move(body)); }

}  // namespace aprime::os
