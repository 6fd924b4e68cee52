#include "tests/paging/world.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "aprime/detail/pager.hpp"

namespace aprime::explored {

using detail::PageEntry;

namespace {

constexpr device::RegionId kRegion{3};

constexpr GranuleRange one(std::uint64_t g) { return {GranuleIndex{g}, GranuleCount{1}}; }

/// What other device threads add to.
std::uint64_t count_at(const std::uint64_t* word) noexcept {
  return detail::DeviceWord<std::uint64_t>(const_cast<std::uint64_t&>(*word)).load(detail::order::relaxed);
}

}  // namespace

void World::Memory::track_in(WeakMemory& memory) {
  // In the order in which they were asked for.
  constexpr const char* kNames[] = {"staging memory", "words of both sides", "device words", "port",
                                    "page table"};
  std::size_t i = 0;
  for (const os::Mapped& part : parts_)
    memory.track(i < std::size(kNames) ? kNames[i++] : "memory", part.bytes());
}

Status World::Memory::upload(std::byte* to, std::span<const std::byte> from) noexcept {
  std::ranges::copy(from, to);
  return {};
}

World::World(const Options& options)
    : options_(options),
      home_(options.granules * PlainFrames::kBytes),
      known_(options.granules),
      begun_(options.granules),
      ended_(options.granules),
      frames_(options.frames),
      pool_(FrameCount{options.frames}) {
  current_ = this;
  for (std::uint64_t g = 0; g < options.granules; ++g) home_of(g) = {tag(g), 0};
  paging_ =
      std::make_unique<device::Paging>(memory_, frames_.address(FrameIndex{0}),
                                       [this](const detail::PagingPort* port) { return run_pager(port); });
  constexpr ByteCount kBytes{PlainFrames::kBytes};
  device::RegionParams params{kRegion, GranuleSize::of(kBytes), FrameCount{1}, "x.f32",
                              GranuleCount{options.granules}};
  // By new: it is our business alone what else this is.
  region_.reset(new device::DemandRegion(std::move(params), frames_, kBytes, pool_, *this, *this));
  window_ = region_->paged_window();
  WeakMemory& memory = explorer_.memory();
  memory_.track_in(memory);
  memory.track("home", home_);
  memory.track("frames", frames_.bytes());
  for (std::size_t f = 0; f < options.frames; ++f)
    memory.watch({frames_.address(FrameIndex{f}), sizeof(Granule)});
  paged_ = std::make_unique<FewEntries>(region_->paged(), options.granules);
  Warp::forget_all();
  for (unsigned block = 0; block <= options.copiers; ++block) {
    pager_warps_.emplace_back(options.pager_lanes);
    for (unsigned lane = block == 0 ? 1 : 0; lane < options.pager_lanes; ++lane)
      add_pager_thread(block, lane);
  }
  explorer_.add_thread([this] { launch(); });
}

World::~World() {
  region_.reset();
  paging_.reset();
  current_ = nullptr;
}

void World::kernel(std::function<void(World&)> body) { add_kernel_thread(std::move(body), nullptr, 0); }

void World::warp(std::vector<std::function<void(World&)>> lanes) {
  Warp& warp = warps_.emplace_back(static_cast<unsigned>(lanes.size()));
  unsigned lane = 0;
  for (auto& body : lanes) add_kernel_thread(std::move(body), &warp, lane++);
}

void World::add_kernel_thread(std::function<void(World&)> body, Warp* warp, unsigned lane) {
  ++kernels_;
  explorer_.add_thread([this, warp, lane, run = std::move(body)] {
    explorer_.wait_until([this] { return has_begun_; });
    explorer_.memory().take(&has_begun_);
    if (warp != nullptr) warp->enter(lane);
    run(*this);
    kernel_thread_has_ended();
  });
}

void World::kernel_thread_has_ended() noexcept {
  Warp::leave();
  explorer_.memory().give(&kernels_);
  --kernels_;
  Explorer::changed();
}

void World::host(std::function<void(World&)> body) {
  ++hosts_;
  explorer_.add_thread([this, run = std::move(body)] {
    run(*this);
    explorer_.memory().give(&hosts_);
    --hosts_;
    Explorer::changed();
  });
}

void World::launch() noexcept {
  device::PagedRegion* const regions[] = {paged_.get()};
  paging_->begin(regions);
  explorer_.memory().give(&has_begun_);
  has_begun_ = true;
  Explorer::changed();
  explorer_.wait_until([this] { return kernels_ == 0; });
  explorer_.memory().take(&kernels_);
  paging_->end(true);
  const bool should_fail = options_.bad_granule < options_.granules;
  expect(paging_->failure().has_value() == should_fail, "a fault was answered wrongly");
  // The others work on the region as it is without a kernel.
  explorer_.wait_until([this] { return hosts_ == 0; });
  explorer_.memory().take(&hosts_);
  paging_.reset();
  Explorer::changed();
}

Status World::run_pager(const detail::PagingPort* port) noexcept {
  // Behind the kernel, where it has no room beside it.
  if (!options_.has_pager) {
    explorer_.wait_until([this] { return kernels_ == 0; });
    explorer_.memory().take(&kernels_);
  }
  explorer_.memory().give(&pager_port_);
  pager_port_ = port;
  Explorer::changed();
  be_pager(port, 0, 0);
  explorer_.wait_until([this] { return others_of_pager_ == 0; });
  explorer_.memory().take(&others_of_pager_);
  return {};
}

void World::add_pager_thread(unsigned block, unsigned lane) {
  explorer_.add_thread([this, block, lane] {
    explorer_.wait_until([&] { return pager_port_ != nullptr || paging_ == nullptr; });
    if (paging_ == nullptr) return;
    explorer_.memory().take(&pager_port_);
    ++others_of_pager_;
    be_pager(pager_port_, block, lane);
    explorer_.memory().give(&others_of_pager_);
    --others_of_pager_;
    Explorer::changed();
  });
}

void World::be_pager(const detail::PagingPort* port, unsigned block, unsigned lane) noexcept {
  pager_warps_[block].enter(lane);
  // Looked at before anybody else may run.
  detail::blockIdx = {block, 0, 0};
  detail::blockDim = {options_.pager_lanes, 1, 1};
  detail::PagerKernel{}(port);
  Warp::leave();
}

std::string World::check() {
  const detail::PagingPort& port = *window_.port;
  for (std::uint64_t i = 0; i < detail::kPagingCommands; ++i)
    if (port.commands[i].done >> 1 != port.commands[i].ready) return "a command was left over";
  for (std::uint64_t g = 0; g < options_.granules; ++g) {
    const bool is_home_stale = known_[g].may_store;
    const Granule& bytes =
        is_home_stale ? words_at(frames_.address(region_->frame_of(GranuleIndex{g}))) : home_of(g);
    if ((window_.entries[g] & PageEntry::kPins) != 0) return "pins are left";
    if (bytes[0] != tag(g)) return "the bytes are another granule's";
    if (bytes[1] != ended_[g].size())
      return std::to_string(ended_[g].size()) + " additions were made, and " + std::to_string(bytes[1]) +
             " are there";
  }
  return {};
}

void World::expect(bool is_so, const char* otherwise) noexcept {
  if (!is_so) explorer_.fail(otherwise);
}

void World::note_addition(std::uint64_t g, WeakMemory::Stamp when) noexcept { ended_[g].push_back(when); }

std::uint64_t World::additions_known(std::uint64_t g) noexcept {
  WeakMemory& memory = explorer_.memory();
  if (!memory.is_weak()) return ended_[g].size();
  return static_cast<std::uint64_t>(
      std::ranges::count_if(ended_[g], [&](WeakMemory::Stamp when) { return memory.knows(when); }));
}

/// Of what it did before its last release.
WeakMemory::Stamp World::when_released() noexcept {
  WeakMemory::Stamp when = explorer_.memory().now();
  --when.epoch;
  return when;
}

void World::expect_current(std::uint64_t g, std::uint64_t ended, const Granule& seen) noexcept {
  expect(seen[0] == tag(g), "another granule's bytes are seen");
  expect(seen[1] >= ended, "what is seen is too old");
  expect(seen[1] <= begun_[g], "what is seen was never stored");
}

// The kernel's threads.

void World::add(std::uint64_t g) noexcept {
  ++begun_[g];
  static_cast<void>(span().atomic_add(kWords * g + 1, 1));
  note_addition(g, when_released());
}

void World::add_pinned(std::uint64_t g) noexcept {
  ++begun_[g];
  {
    const auto pinned = span().pin_span(kWords * g, 2);
    expect(pinned[0] == tag(g), "a pin shows another granule's bytes");
    was_pinned_ = true;
    Explorer::changed();
    const std::uint64_t stored = ::atomicAdd(detail::cuda_word(&pinned[1]), 1) + 1;
    explorer_.step();
    expect(pinned[0] == tag(g) && count_at(&pinned[1]) >= stored, "a granule was taken in spite of a pin");
  }
  note_addition(g, when_released());
}

void World::ask_for(std::uint64_t g) noexcept {
  detail::wait_for_right(window_, g, false, detail::lanes_at(&window_.entries[g], detail::Want::read));
}

void World::wait_for_pin() noexcept {
  explorer_.wait_until([this] { return was_pinned_; });
}

void World::read(const Span& span, std::uint64_t g) noexcept {
  const std::uint64_t ended = additions_known(g);
  const std::uint64_t first = span.load(kWords * g);
  expect_current(g, ended, {first, span.load(kWords * g + 1)});
}

void World::read_pinned(std::uint64_t g) noexcept {
  const std::uint64_t ended = additions_known(g);
  const auto pinned = ConstSpan(span()).pin_span(kWords * g, 2);
  const Granule seen{pinned[0], count_at(&pinned[1])};
  explorer_.step();
  expect(pinned[0] == seen[0] && count_at(&pinned[1]) >= seen[1], "a granule was taken in spite of a pin");
  expect_current(g, ended, seen);
}

// The host's, and the engine.

Status World::read(ByteOffset at, std::span<std::byte> into) noexcept {
  explorer_.step();
  copy_noted(std::span(home_).subspan(at.value, into.size()), into);
  return {};
}

Status World::write(ByteOffset at, std::span<const std::byte> from) noexcept {
  explorer_.step();
  copy_noted(from, std::span(home_).subspan(at.value));
  return {};
}

void World::begin_use(std::uint64_t g) noexcept {
  explorer_.wait_until([&] { return !known_[g].is_busy; });
  explorer_.memory().take(&known_[g]);
  known_[g].is_busy = true;
}

void World::end_use(std::uint64_t g) noexcept {
  explorer_.memory().give(&known_[g]);
  known_[g].is_busy = false;
  Explorer::changed();
}

Status World::on_device_fault(device::Region&, GranuleIndex g, bool write) noexcept {
  if (g.value == options_.bad_granule) return {Errc::io, EIO, ByteOffset{g.value * PlainFrames::kBytes}};
  return give(g.value, write);
}

Status World::give(std::uint64_t g, bool write) noexcept {
  begin_use(g);
  Known& known = known_[g];
  const bool has_it = write ? known.may_store : known.may_load;
  if (!known.may_load) {
    take_frame(g);
    expect_ok(region_->fill(one(g), *this).status);
    known.may_load = true;
  }
  if (write && !known.may_store) {
    expect_ok(region_->grant_write(one(g)).status);
    known.may_store = true;
  }
  if (has_it) expect_ok(region_->restore(one(g), known.may_store));
  end_use(g);
  return {};
}

/// Another granule's, if there is no free one.
void World::take_frame(std::uint64_t g) noexcept {
  for (;; explorer_.sleep()) {
    explorer_.step();
    const auto claim = pool_.claim(FrameCount{1}, {kRegion, GranuleIndex{g}});
    if (claim.kind == device::FramePool::Claim::Kind::got) {
      region_->set_frame(GranuleIndex{g}, claim.frame);
      return;
    }
    expect(claim.kind == device::FramePool::Claim::Kind::evict, "there is no frame");
    const std::uint64_t victim = claim.victim.granule.value;
    if (known_[victim].is_busy || !known_[victim].may_load) continue;
    explorer_.memory().take(&known_[victim]);
    known_[victim].is_busy = true;
    bring_home(victim, false);
    end_use(victim);
  }
}

void World::bring_home(std::uint64_t g, bool keeps_copy) noexcept {
  Known& known = known_[g];
  const bool copies_first = options_.flaw == Flaw::copies_before_revoking;
  if (known.may_store) {
    if (copies_first) expect_ok(region_->copy_home(one(g), *this).status);
    expect_ok(region_->protect(one(g)).status);
    if (!copies_first) expect_ok(region_->copy_home(one(g), *this).status);
    known.may_store = false;
  }
  if (keeps_copy) return;
  expect_ok(region_->release(one(g)).status);
  known.may_load = false;
  pool_.free(region_->frame_of(GranuleIndex{g}), FrameCount{1});
  region_->clear_frame(GranuleIndex{g});
}

void World::host_add(std::uint64_t g) noexcept {
  begin_use(g);
  if (known_[g].may_load) bring_home(g, false);
  explorer_.step();
  ++begun_[g];
  ++home_of(g)[1];
  note_addition(g, explorer_.memory().now());
  end_use(g);
}

void World::host_read(std::uint64_t g) noexcept {
  const std::uint64_t ended = additions_known(g);
  begin_use(g);
  if (known_[g].may_store) bring_home(g, true);
  explorer_.step();
  const Granule seen = home_of(g);
  end_use(g);
  expect_current(g, ended, seen);
}

void World::host_add_through_copy(std::uint64_t g) noexcept {
  begin_use(g);
  if (!known_[g].may_store) {
    end_use(g);
    return host_add(g);
  }
  // As a bounced write: home stays as it is.
  ++begun_[g];
  expect_ok(region_->protect(one(g)).status);
  std::uint64_t count = 0;
  const ByteCount at{sizeof count};
  expect_ok(region_->read_copy(GranuleIndex{g}, at, std::as_writable_bytes(std::span(&count, 1))));
  ++count;
  expect_ok(region_->write_copy(GranuleIndex{g}, at, std::as_bytes(std::span(&count, 1))));
  note_addition(g, explorer_.memory().now());
  end_use(g);
}

void World::evict(std::uint64_t g) noexcept {
  begin_use(g);
  if (known_[g].may_load) bring_home(g, false);
  end_use(g);
}

void World::prefetch(std::uint64_t g) noexcept { expect_ok(give(g, false)); }

std::uint64_t stored_by_device(const std::uint64_t* word, std::uint64_t before,
                               std::uint64_t after) noexcept {
  return World::current()->stored(word, before, after);
}

Order ordered_by_device(Order how) noexcept { return World::current()->ordered(how); }

bool is_fenced_by_device() noexcept { return World::current()->is_fenced(); }

Order World::ordered(Order how) const noexcept {
  switch (options_.flaw) {
    case Flaw::releases_nothing: return acquires(how) ? Order::acquire : Order::relaxed;
    case Flaw::acquires_nothing: return releases(how) ? Order::release : Order::relaxed;
    default: return how;
  }
}

std::uint64_t World::stored(const std::uint64_t* word, std::uint64_t before, std::uint64_t after) noexcept {
  const std::less<> is_before;
  const auto is_in = [&](const auto* first, std::size_t count) {
    const auto* const at = reinterpret_cast<const std::byte*>(word);
    return !is_before(at, reinterpret_cast<const std::byte*>(first)) &&
           is_before(at, reinterpret_cast<const std::byte*>(first + count));
  };
  const bool is_entry = is_in(window_.entries, options_.granules);
  switch (options_.flaw) {
    case Flaw::calls_pinned_taken:
      return is_in(window_.port->commands, detail::kPagingCommands) ? after & ~std::uint64_t{1} : after;
    case Flaw::loses_a_fault:
      return is_in(window_.port->faults, detail::kPagingFaults) && ++faults_posted_ == 2 ? before : after;
    case Flaw::forgets_pins:
      return is_entry ? (after & ~PageEntry::kPins) | (before & PageEntry::kPins) : after;
    case Flaw::keeps_own_mark:
      // Only that is changed.
      return is_entry && after == (before & after) &&
                     (before & ~PageEntry::kPending) == (after & ~PageEntry::kPending)
                 ? before
                 : after;
    case Flaw::keeps_pending: return is_entry ? after | (before & PageEntry::kPending) : after;
    case Flaw::keeps_read: return is_entry ? after | (before & PageEntry::kRead) : after;
    default: return after;
  }
}

}  // namespace aprime::explored
