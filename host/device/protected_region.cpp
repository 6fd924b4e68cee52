#include <algorithm>
#include <cassert>
#include <utility>

#include "host/device/emulated_faulting.hpp"
#include "host/device/twin_memory.hpp"
#include "host/os/protected_range.hpp"

namespace aprime::device {

namespace {

/// A granule without a right reads as zeros through the alias and takes no memory. The hardware may give less
/// than the directory says (see os::ProtectedRange): a right that could not be set is given back by `restore`
/// when somebody faults for it, so only taking rights away has to succeed, and it does.
class ProtectedRegion final : public FaultingRegion {
 public:
  ProtectedRegion(RegionParams params, FaultHandler& handler, KernelActivity& activity)
      : FaultingRegion(std::move(params), handler, activity),
        memory_(make_window(params_, [](std::size_t size) { return TwinMemory(size); })),
        view_(memory_.map_view(0).memory, params_.granule.bytes(), os::Protection::none,
              os::Protection::read_write),
        serving_(*this, view_.data(), view_.size()) {}

  Progress fill(GranuleRange run, HomePort& home) noexcept override {
    return in_one_go_or_each(run, [&](GranuleRange r) {
      Status status = home.read(params_.granule.offset_of(r.first), bytes_of(r));
      if (status.is_ok()) status = give(r, os::Protection::read);
      if (!status.is_ok()) memory_.clear(offset_of(r.first), size_of(r));
      return status;
    });
  }

  Progress adopt(GranuleRange run) noexcept override {
    return in_one_go_or_each(run, [this](GranuleRange r) { return give(r, os::Protection::read_write); });
  }

  Status restore(GranuleRange run, bool write) noexcept override {
    return view_.set(run.first, run.count, write ? os::Protection::read_write : os::Protection::read);
  }

  std::uint64_t over_protections() const noexcept override { return view_.over_protections(); }

  Progress copy_home(GranuleRange run, HomePort& home) noexcept override {
    return in_one_go_or_each(
        run, [&](GranuleRange r) { return home.write(params_.granule.offset_of(r.first), bytes_of(r)); });
  }

  Status read_copy(GranuleIndex g, ByteCount offset, std::span<std::byte> into) noexcept override {
    std::copy_n(memory_.alias().data() + offset_of(g) + offset.value, into.size(), into.data());
    return {};
  }

 private:
  Progress give_write(GranuleRange run) noexcept override {
    return in_one_go_or_each(run, [this](GranuleRange r) {
      const Status status = view_.set(r.first, r.count, os::Protection::read_write);
      if (!status.is_ok()) static_cast<void>(take_write(r));
      return status;
    });
  }

  /// Leaves the right to read, but where that would have to be given (it was over-protected), and cannot.
  Progress take_write(GranuleRange run) noexcept override {
    if (!view_.set(run.first, run.count, os::Protection::read).is_ok()) take_rights(run);
    return {run.count, {}};
  }

  Progress take_all(GranuleRange run) noexcept override {
    take_rights(run);
    memory_.clear(offset_of(run.first), size_of(run));
    return {run.count, {}};
  }

  Status replace(GranuleIndex g, ByteCount offset, std::span<const std::byte> from) noexcept override {
    if (from.empty()) return {};
    const GranuleRange granule{g, GranuleCount{1}};
    take_rights(granule);
    std::copy_n(from.data(), from.size(), memory_.alias().data() + offset_of(g) + offset.value);
    static_cast<void>(view_.set(g, GranuleCount{1}, os::Protection::read));
    return {};
  }

  std::span<std::byte> bytes_of(GranuleRange r) const noexcept {
    return memory_.alias().subspan(offset_of(r.first), size_of(r));
  }
  /// The granules had no right. On failure they have none.
  Status give(GranuleRange r, os::Protection right) noexcept {
    const Status status = view_.set(r.first, r.count, right);
    if (!status.is_ok()) take_rights(r);
    return status;
  }
  void take_rights(GranuleRange r) noexcept {
    [[maybe_unused]] const Status status = view_.set(r.first, r.count, os::Protection::none);
    assert(status.is_ok() && "taking rights away cannot fail");
  }

  TwinMemory memory_;
  os::ProtectedRange view_;
  Serving serving_;
};

}  // namespace

std::unique_ptr<Region> make_protected_region(RegionParams params, FaultHandler& handler,
                                              KernelActivity& activity) {
  return std::make_unique<ProtectedRegion>(std::move(params), handler, activity);
}

}  // namespace aprime::device
