#include "aprime/detail/page_access.hpp"
#include "aprime/kernel.hpp"
#include "host/device/kernel_stop.hpp"
#include "host/os/quiet_thread.hpp"
#include "tests/explorer/explorer.hpp"
#include "tests/paging/warp.hpp"
#include "tests/paging/world.hpp"

// What the library's code calls of an executor and of the system, for explored threads.

namespace aprime::detail {

std::uint64_t warp_rendezvous(WarpOp op, unsigned mask, std::uint64_t value, unsigned operand,
                              unsigned) noexcept {
  return explored::Warp::meet(op, mask, value, operand);
}

[[gnu::noinline]] unsigned converged_lanes() noexcept {
  return explored::Warp::converged(__builtin_return_address(0));
}

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
bool is_below_current_stack(const void*) noexcept { return false; }
void redirect_to_stop(ucontext_t&, const KernelFault&) noexcept {}

}  // namespace aprime::device

namespace aprime::os {

std::thread start_quiet_thread(std::function<void()> body) { return std::thread(std::move(body)); }

}  // namespace aprime::os
