#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "host/device/demand_region.hpp"

// What a region does while a kernel runs: by commands to device threads.

namespace aprime::device {

namespace {

using detail::PageEntry;
using detail::PagingCommand;
using detail::PagingOp;

/// Larger granules are copied by several commands.
constexpr std::uint64_t kChunkBytes = detail::kCommandBytesMax;
/// Commands that one operation has under way at once.
constexpr std::size_t kCommandsMax = 64;

}  // namespace

Progress DemandRegion::fill_by_commands(GranuleRange run, HomePort& home) noexcept {
  const StagingPool::Lease staging = source_.paging().staging().lease();
  const std::uint64_t granule = params_.granule.bytes().value;
  GranuleCount most{staging.first_half().size() / granule};
  GranuleCount done{0};
  while (done < run.count) {
    const GranuleRange part{run.first + done, std::min(most, run.count - done)};
    const auto bytes =
        staging.first_half().first(static_cast<std::size_t>(params_.granule.bytes_of(part.count).value));
    Progress filled{GranuleCount{0}, {}};
    if (granule <= kChunkBytes) {
      filled = fill_each(part, home, bytes);
    } else {
      filled.status = home.read(params_.granule.offset_of(part.first), bytes);
      if (!filled.status.is_ok() && part.count.value > 1) {
        // Which of them cannot be read is not known; those before it can.
        most = GranuleCount{1};
        continue;
      }
      if (filled.status.is_ok()) filled.status = copy(PagingOp::copy_in, part, bytes);
      if (filled.status.is_ok()) {
        for (GranuleIndex g = part.first; g < part.end(); ++g.value) label({g, GranuleCount{1}});
        filled = publish(part, Right::read);
      }
    }
    done.value += filled.done.value;
    if (!filled.status.is_ok()) return {done, filled.status};
  }
  return {done, {}};
}

Progress DemandRegion::fill_each(GranuleRange run, HomePort& home, std::span<std::byte> staging) noexcept {
  Paging& paging = source_.paging();
  const std::size_t granule = static_cast<std::size_t>(params_.granule.bytes().value);
  const GranuleCount at_once{kChunkBytes / granule};
  std::array<Paging::Ticket, kCommandsMax> tickets;
  std::size_t posted = 0;
  Status failure;
  const auto await_all = [&] {
    for (std::size_t i = 0; i < posted; ++i)
      if (const Status status = paging.await(tickets[i]); failure.is_ok()) failure = status;
    posted = 0;
  };
  GranuleCount opened{0};
  // While the device copies the first granules, the next ones are read.
  for (GranuleCount read{0}; opened < run.count && failure.is_ok(); ++opened.value) {
    const GranuleIndex g = run.first + opened;
    const std::span<std::byte> bytes = staging.subspan(opened.value * granule, granule);
    if (read == opened) {
      GranuleCount now = std::min(at_once, run.count - read);
      failure = home.read(params_.granule.offset_of(g), {bytes.data(), now.value * granule});
      if (!failure.is_ok() && now.value > 1) {
        // Which of them cannot be read is not known; those before it can.
        now = GranuleCount{1};
        failure = home.read(params_.granule.offset_of(g), {bytes.data(), granule});
      }
      if (!failure.is_ok()) break;
      read.value += now.value;
    }
    failure = open_frames(g, PageEntry::kRead);
    if (!failure.is_ok()) break;
    label({g, GranuleCount{1}});
    note_rights({GranuleCount{1}, {}}, {g, GranuleCount{1}}, PageEntry::kRead);
    if (posted == tickets.size()) await_all();
    tickets[posted++] = paging.post({.op = PagingOp::fill,
                                     .bytes = static_cast<std::uint32_t>(granule),
                                     .entry = &table_[g.value],
                                     .value = entry_of(g),
                                     .frame_at = frame_at(g),
                                     .staging_at = paging.staging_at(bytes)});
  }
  await_all();
  paging.take_back_if_stopping(table_.subspan(run.first.value, opened.value));
  return {opened, failure};
}

Progress DemandRegion::copy_home_by_commands(GranuleRange run, HomePort& home) noexcept {
  const StagingPool::Lease staging = source_.paging().staging().lease();
  const GranuleCount most{staging.first_half().size() / params_.granule.bytes().value};
  GranuleCount done{0};
  while (done < run.count) {
    const GranuleRange part{run.first + done, std::min(most, run.count - done)};
    const auto bytes =
        staging.first_half().first(static_cast<std::size_t>(params_.granule.bytes_of(part.count).value));
    const Status status = copy(PagingOp::copy_out, part, bytes);
    if (!status.is_ok()) return {done, status};
    const std::span<const std::byte> all = bytes;
    const auto granule = static_cast<std::size_t>(params_.granule.bytes().value);
    const Progress written = in_one_go_or_each(part, [&](GranuleRange r) {
      return home.write(params_.granule.offset_of(r.first),
                        all.subspan((r.first - part.first).value * granule, r.count.value * granule));
    });
    done.value += written.done.value;
    if (!written.status.is_ok()) return {done, written.status};
  }
  return {done, {}};
}

Status DemandRegion::write_part(GranuleIndex g, std::uint64_t offset,
                                std::span<const std::byte> from) noexcept {
  Paging& paging = source_.paging();
  const StagingPool::Lease staging = paging.staging().lease();
  std::byte* const bytes = staging.first_half().data();
  const std::uint64_t first = offset / detail::kCopyWordBytes * detail::kCopyWordBytes;
  const Status status = read_by_commands(g, first, offset + from.size(), bytes);
  if (!status.is_ok()) return status;
  std::memcpy(bytes + (offset - first), from.data(), from.size());
  const std::uint64_t size = (offset + from.size() - first + detail::kCopyWordBytes - 1) /
                             detail::kCopyWordBytes * detail::kCopyWordBytes;
  return execute((size + kChunkBytes - 1) / kChunkBytes, [&](std::uint64_t i) {
    const std::uint64_t at = i * kChunkBytes;
    return PagingCommand{.op = PagingOp::copy_in,
                         .bytes = static_cast<std::uint32_t>(std::min(kChunkBytes, size - at)),
                         .frame_at = frame_at(g) + first + at,
                         .staging_at = paging.staging_at(staging.first_half()) + at};
  });
}

Status DemandRegion::read_by_commands(GranuleIndex g, std::uint64_t first, std::uint64_t end,
                                      std::byte* staging) noexcept {
  Paging& paging = source_.paging();
  const std::uint64_t begin = first / detail::kCopyWordBytes * detail::kCopyWordBytes;
  const std::uint64_t size =
      (end - begin + detail::kCopyWordBytes - 1) / detail::kCopyWordBytes * detail::kCopyWordBytes;
  return execute((size + kChunkBytes - 1) / kChunkBytes, [&](std::uint64_t i) {
    const std::uint64_t at = i * kChunkBytes;
    return PagingCommand{.op = PagingOp::copy_out,
                         .bytes = static_cast<std::uint32_t>(std::min(kChunkBytes, size - at)),
                         .frame_at = frame_at(g) + begin + at,
                         .staging_at = paging.staging_at({staging, 1}) + at};
  });
}

Status DemandRegion::copy(PagingOp op, GranuleRange run, std::span<const std::byte> staging) noexcept {
  const std::uint64_t granule = params_.granule.bytes().value;
  const std::uint64_t chunk = std::min(granule, kChunkBytes);
  const std::uint64_t base = staging.empty() ? 0 : source_.paging().staging_at(staging);
  return execute(run.count.value * (granule / chunk), [&](std::uint64_t i) {
    const std::uint64_t at = i * chunk;
    return PagingCommand{.op = op,
                         .bytes = static_cast<std::uint32_t>(chunk),
                         .frame_at = frame_at(run.first + GranuleCount{at / granule}) + at % granule,
                         .staging_at = base + at};
  });
}

template <class Make>
Status DemandRegion::execute(std::uint64_t count, const Make& make) noexcept {
  Paging& paging = source_.paging();
  std::array<Paging::Ticket, kCommandsMax> tickets;
  Status first_error;
  for (std::uint64_t begin = 0; begin < count; begin += kCommandsMax) {
    const std::size_t now = static_cast<std::size_t>(std::min<std::uint64_t>(kCommandsMax, count - begin));
    for (std::size_t i = 0; i < now; ++i) tickets[i] = paging.post(make(begin + i));
    for (std::size_t i = 0; i < now; ++i) {
      const Status status = paging.await(tickets[i]);
      if (first_error.is_ok()) first_error = status;
    }
  }
  return first_error;
}

Progress DemandRegion::publish(GranuleRange run, Right right) noexcept {
  const std::uint64_t rights = includes_write(right) ? PageEntry::kReadWrite : PageEntry::kRead;
  GranuleCount opened{0};
  Status status;
  for (; opened < run.count; ++opened.value) {
    const GranuleIndex g = run.first + opened;
    status = open_frames(g, rights & ~rights_of(g));
    if (!status.is_ok()) break;
  }
  note_rights({opened, {}}, run, rights);
  const Status published = execute(opened.value, [&](std::uint64_t i) {
    const GranuleIndex g = run.first + GranuleCount{i};
    return PagingCommand{.op = PagingOp::set, .entry = &table_[g.value], .value = entry_of(g)};
  });
  source_.paging().take_back_if_stopping(table_.subspan(run.first.value, opened.value));
  // Only a device that has failed does not execute it, and then nobody uses the entry.
  return {opened, status.is_ok() ? published : status};
}

Progress DemandRegion::take(PagingOp op, GranuleRange run, Asking how) noexcept {
  Paging& paging = source_.paging();
  std::array<Paging::Ticket, kCommandsMax> tickets;
  GranuleCount done{0};
  const auto command_for = [&](GranuleIndex g) { return PagingCommand{.op = op, .entry = &table_[g.value]}; };
  while (done < run.count) {
    const auto now =
        static_cast<std::size_t>(std::min<std::uint64_t>(kCommandsMax, (run.count - done).value));
    const GranuleIndex end = run.first + GranuleCount{done.value + now};
    for (std::size_t i = 0; i < now; ++i)
      tickets[i] = paging.post(command_for(run.first + GranuleCount{done.value + i}));
    for (std::size_t i = 0; i < now; ++i) {
      const GranuleIndex g = run.first + done;
      const Status status = paging.await_release(tickets[i], command_for(g), how);
      if (!status.is_ok()) {
        // The commands are executed in the end, or not; nor are the others waited for, of the same go.
        for (GranuleIndex left = g; left < end; ++left.value) note_unsure(left);
        return {done, {status.code, status.system_error, params_.granule.offset_of(g), status.reason}};
      }
      const std::uint64_t kept = op == PagingOp::revoke ? 0 : rights_of(g) & PageEntry::kRead;
      close_frames(g, rights_of(g) & ~kept);
      note_rights({GranuleCount{1}, {}}, {g, GranuleCount{1}}, kept);
      ++done.value;
    }
  }
  return {done, {}};
}

}  // namespace aprime::device
