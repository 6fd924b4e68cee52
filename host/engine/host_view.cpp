#include "host/engine/host_view.hpp"

#include <algorithm>
#include <csignal>

namespace aprime::engine {
namespace {

os::Protection ceiling_of(Access access) noexcept {
  return access == Access::read ? os::Protection::read : os::Protection::read_write;
}

}  // namespace

HostView::HostView(os::File& file, ByteRange range, GranuleSize granule, Access access,
                   HostFaultHandler& handler)
    : granule_(granule),
      granules_(granule.covering(range)),
      access_(access),
      handler_(handler),
      memory_(file.map_shared(granule.bytes_of(granules_), access), granule.bytes(), ceiling_of(access),
              ceiling_of(access)),
      registration_(memory_.data(), memory_.size(), *this) {}

bool HostView::contains(const void* p) const noexcept {
  const auto* at = static_cast<const std::byte*>(p);
  return at >= memory_.data() && at < memory_.data() + memory_.size();
}

Status HostView::set(GranuleRange run, os::Protection p) noexcept {
  const std::uint64_t first = std::max(run.first.value, granules_.first.value);
  const std::uint64_t end = std::min(run.end().value, granules_.end().value);
  if (first >= end) return {};
  return memory_.set(GranuleIndex{first - granules_.first.value}, GranuleCount{end - first}, p);
}

os::TrapTarget::Answer HostView::on_trap(const os::Trap& trap) noexcept {
  // Rights are taken with mprotect, whose traps are SIGSEGV. A SIGBUS here is the file system's: the page is
  // beyond the end of the file or could not be read, and no right that we could give would change that.
  if (trap.signal == SIGBUS) return Answer::bus_error;
  if (trap.write && access_ == Access::read) return Answer::not_mine;
  const auto into_view = static_cast<std::uint64_t>(trap.address - memory_.data());
  const ByteOffset at = granule_.offset_of(granules_.first) + ByteCount{into_view};
  if (!handler_.is_backed(at)) return Answer::bus_error;
  return handler_.on_host_fault(*this, granule_.index_of(at), trap.write).is_ok() ? Answer::resolved
                                                                                  : Answer::bus_error;
}

}  // namespace aprime::engine
