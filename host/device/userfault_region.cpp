#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "host/device/emulated_faulting.hpp"
#include "host/device/sanitizer_fibers.hpp"
#include "host/os/userfault.hpp"

namespace aprime::device {

namespace {

/// A granule is as its right: its pages are missing, present and write-protected, or present and writable.
/// While a granule is filled, device threads may see its first pages already: each page appears with its
/// bytes, a page that is still missing is waited for, and a store waits for the write right.
class UserfaultRegion final : public FaultingRegion {
 public:
  UserfaultRegion(RegionParams params, FaultHandler& handler, KernelActivity& activity, StagingPool& staging)
      : FaultingRegion(std::move(params), handler, activity),
        staging_(staging),
        memory_(make_window(params_, [](std::size_t size) { return os::UserfaultMemory(size); })),
        serving_(*this, memory_.data(), memory_.size()) {}

  Progress fill(GranuleRange run, HomePort& home) noexcept override;
  Progress adopt(GranuleRange run) noexcept override;
  Progress copy_home(GranuleRange run, HomePort& home) noexcept override;
  Status read_copy(GranuleIndex g, ByteCount offset, std::span<std::byte> into) noexcept override;
  Status restore(GranuleRange run, bool write) noexcept override;

 private:
  Progress give_write(GranuleRange run) noexcept override;
  Progress take_write(GranuleRange run) noexcept override;
  Progress take_all(GranuleRange run) noexcept override;
  Status replace(GranuleIndex g, ByteCount offset, std::span<const std::byte> from) noexcept override;
  Progress fill_from_alias(GranuleRange run, std::span<const std::byte> alias) noexcept;
  Status fill_from_staging(GranuleRange run, HomePort& home) noexcept;
  Status place(std::byte* at, std::span<const std::byte> bytes, std::size_t* done) noexcept {
    return memory_.copy(at, bytes, true, done);
  }
  std::byte* at(GranuleIndex g) const noexcept { return memory_.data() + offset_of(g); }
  GranuleRange rest_of(GranuleRange run, GranuleCount done) const noexcept {
    return {run.first + done, GranuleCount{run.count.value - done.value}};
  }

  StagingPool& staging_;
  os::UserfaultMemory memory_;
  Serving serving_;
};

Progress UserfaultRegion::fill(GranuleRange run, HomePort& home) noexcept {
  GranuleCount done{0};
  while (done < run.count) {
    const Progress aliased = fill_from_alias(rest_of(run, done), home.alias());
    done.value += aliased.done.value;
    // `out_of_range` means that the kernel could not read the alias there. Why not, only `read` can say.
    if (!aliased.status.is_ok() && aliased.status.code != Errc::out_of_range) return {done, aliased.status};
    if (done == run.count) break;

    const GranuleCount at_once{
        std::max<std::uint64_t>(1, StagingPool::kHalfBytes / params_.granule.bytes().value)};
    const GranuleRange next{run.first + done, std::min(at_once, rest_of(run, done).count)};
    const Progress staged =
        in_one_go_or_each(next, [&](GranuleRange r) { return fill_from_staging(r, home); });
    done.value += staged.done.value;
    if (!staged.status.is_ok()) return {done, staged.status};
  }
  return {done, {}};
}

/// Fills the granules at the beginning of `run` that lie whole within the alias: one copy, made by the
/// kernel.
Progress UserfaultRegion::fill_from_alias(GranuleRange run, std::span<const std::byte> alias) noexcept {
  const std::size_t begin = offset_of(run.first);
  const auto granule = static_cast<std::size_t>(params_.granule.bytes().value);
  if (alias.size() < begin + granule) return {GranuleCount{0}, {}};
  const std::size_t covered = std::min(size_of(run), (alias.size() - begin) / granule * granule);
  std::size_t done = 0;
  const Status status = place(memory_.data() + begin, alias.subspan(begin, covered), &done);
  if (status.is_ok()) return {GranuleCount{covered / granule}, {}};
  const std::size_t whole = done / granule * granule;
  if (done != whole) static_cast<void>(memory_.drop(memory_.data() + begin + whole, granule));
  return {GranuleCount{whole / granule}, status};
}

Status UserfaultRegion::fill_from_staging(GranuleRange run, HomePort& home) noexcept {
  const StagingPool::Lease buffer = staging_.lease();
  const std::span<std::byte> bytes = buffer.first_half().first(size_of(run));
  Status status = home.read(params_.granule.offset_of(run.first), bytes);
  if (!status.is_ok()) return status;
  std::size_t done = 0;
  status = place(at(run.first), bytes, &done);
  if (!status.is_ok() && done != 0) static_cast<void>(memory_.drop(at(run.first), bytes.size()));
  return status;
}

Progress UserfaultRegion::adopt(GranuleRange run) noexcept {
  return in_one_go_or_each(run, [this](GranuleRange r) {
    std::size_t done = 0;
    const Status status = memory_.zero(at(r.first), size_of(r), &done);
    if (!status.is_ok() && done != 0) static_cast<void>(memory_.drop(at(r.first), size_of(r)));
    return status;
  });
}

Progress UserfaultRegion::give_write(GranuleRange run) noexcept {
  return in_one_go_or_each(run, [this](GranuleRange r) {
    const Status status = memory_.write_protect(at(r.first), size_of(r), false);
    // A page with a right that the directory does not know of would lose stores.
    if (!status.is_ok()) static_cast<void>(memory_.write_protect(at(r.first), size_of(r), true));
    return status;
  });
}

Progress UserfaultRegion::take_write(GranuleRange run) noexcept {
  return in_one_go_or_each(
      run, [this](GranuleRange r) { return memory_.write_protect(at(r.first), size_of(r), true); });
}

Status UserfaultRegion::restore(GranuleRange run, bool write) noexcept {
  // A present page can be read in any case.
  return write ? memory_.write_protect(at(run.first), size_of(run), false) : Status{};
}

Progress UserfaultRegion::take_all(GranuleRange run) noexcept {
  return in_one_go_or_each(run, [this](GranuleRange r) { return memory_.drop(at(r.first), size_of(r)); });
}

Progress UserfaultRegion::copy_home(GranuleRange run, HomePort& home) noexcept {
  return in_one_go_or_each(run, [&](GranuleRange r) {
    // Stores before `protect` returned are ordered before this by the kernel, of which ThreadSanitizer knows
    // nothing.
    const sanitizer::Overlook overlook;
    return home.write(params_.granule.offset_of(r.first), {at(r.first), size_of(r)});
  });
}

Status UserfaultRegion::read_copy(GranuleIndex g, ByteCount offset, std::span<std::byte> into) noexcept {
  const sanitizer::Overlook overlook;
  std::copy_n(at(g) + offset.value, into.size(), into.data());
  return {};
}

/// Only the pages that change are taken away. Of those, none is there with old bytes when the first appears
/// with new ones, and whoever needs one that is missing waits until the caller's transaction ends.
Status UserfaultRegion::replace(GranuleIndex g, ByteCount offset, std::span<const std::byte> from) noexcept {
  if (from.empty()) return {};
  const auto first = static_cast<std::size_t>(offset.value) / os::kPageBytes * os::kPageBytes;
  const auto end = static_cast<std::size_t>(offset.value) + from.size();
  const std::size_t size = (end + os::kPageBytes - 1) / os::kPageBytes * os::kPageBytes - first;
  std::byte* const place_of_pages = at(g) + first;

  const StagingPool::Lease buffer = staging_.lease();
  const std::span<std::byte> old_bytes = buffer.first_half().first(size);
  const std::span<std::byte> new_bytes = buffer.second_half().first(size);
  {
    const sanitizer::Overlook overlook;
    std::memcpy(old_bytes.data(), place_of_pages, size);
  }
  std::memcpy(new_bytes.data(), old_bytes.data(), size);
  std::memcpy(new_bytes.data() + (offset.value - first), from.data(), from.size());

  Status status = memory_.drop(place_of_pages, size);
  if (!status.is_ok()) return status;
  std::size_t done = 0;
  status = place(place_of_pages, new_bytes, &done);
  if (status.is_ok()) return {};

  // These may be the only bytes there are, so the way back has to succeed. It needs the memory that was just
  // given up, and like the kernel's own page faults it waits for that as long as it takes.
  for (;;) {
    if (done != 0) static_cast<void>(memory_.drop(place_of_pages, size));
    if (place(place_of_pages, old_bytes, &done).is_ok()) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

std::unique_ptr<Region> make_userfault_region(RegionParams params, FaultHandler& handler,
                                              KernelActivity& activity, StagingPool& staging) {
  return std::make_unique<UserfaultRegion>(std::move(params), handler, activity, staging);
}

}  // namespace aprime::device
