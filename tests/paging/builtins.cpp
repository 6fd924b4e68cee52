#include "aprime/detail/page_access.hpp"
#include "aprime/kernel.hpp"
#include "tests/explorer/explorer.hpp"
#include "tests/paging/world.hpp"

// What kernel code calls of the executor, for explored threads: each is a warp of one lane, and a block.

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

void sleep_thread(unsigned) noexcept { explored::Explorer::running().sleep(); }

void end_kernel_thread() noexcept {
  explored::World::current()->kernel_thread_has_ended();
  explored::Explorer::running().end_thread();
}

void end_outside_span(std::uint32_t, std::uint64_t, bool) noexcept {
  explored::Explorer::running().fail("an access outside of the span");
}

}  // namespace aprime::detail
