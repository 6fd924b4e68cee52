#include "aprime/mapping.hpp"

#include "host/engine/failure.hpp"
#include "host/engine/host_lease.hpp"
#include "host/engine/mapping_state.hpp"

namespace aprime {
namespace {

/// A child made by fork() has neither the views nor the threads: there is nothing to end, and ending it would
/// write to the parent's file. The state is left alone.
void end_handle(std::shared_ptr<engine::MappingState>& state) {
  if (state && state->is_in_child_process())
    new std::shared_ptr<engine::MappingState>(
        std::move(state));  // NOLINT: kept for the child's life on purpose
  state.reset();
}

ByteRange whole(const Mapping& m) { return {ByteOffset{0}, m.size_bytes()}; }

}  // namespace

LeaseArgument<Right::read> read(const Mapping& m) { return read(m, whole(m)); }
LeaseArgument<Right::read> read(const Mapping& m, ByteRange range) {
  return {{m.state(), range, Right::read}};
}
LeaseArgument<Right::read_write> read_write(const Mapping& m) { return read_write(m, whole(m)); }
LeaseArgument<Right::read_write> read_write(const Mapping& m, ByteRange range) {
  return {{m.state(), range, Right::read_write}};
}
LeaseArgument<Right::write> write(const Mapping& m) { return write(m, whole(m)); }
LeaseArgument<Right::write> write(const Mapping& m, ByteRange range) {
  return {{m.state(), range, Right::write}};
}
DemandArgument<Right::read> demand_read(const Mapping& m) { return demand_read(m, whole(m)); }
DemandArgument<Right::read> demand_read(const Mapping& m, ByteRange range) {
  return {{m.state(), range, Right::read, true}};
}
DemandArgument<Right::read_write> demand_read_write(const Mapping& m) {
  return demand_read_write(m, whole(m));
}
DemandArgument<Right::read_write> demand_read_write(const Mapping& m, ByteRange range) {
  return {{m.state(), range, Right::read_write, true}};
}

detail::HostLeaseState::~HostLeaseState() {
  if (mapping->is_in_child_process()) {
    new std::shared_ptr<engine::HostView>(std::move(view));  // NOLINT: as a mapping is
  } else {
    mapping->file().unpin(pinned);
    view->let_go(held);
    view.reset();
    mapping->end_host_lease();
  }
  end_handle(mapping);
}

HostLease::HostLease(std::unique_ptr<detail::HostLeaseState> state) noexcept : state_(std::move(state)) {}
HostLease::HostLease() noexcept = default;
HostLease::HostLease(HostLease&&) noexcept = default;
HostLease& HostLease::operator=(HostLease&&) noexcept = default;
HostLease::~HostLease() = default;
std::span<std::byte> HostLease::bytes() const noexcept {
  return state_ ? state_->bytes : std::span<std::byte>{};
}

Mapping::Mapping(std::shared_ptr<engine::MappingState> state) noexcept : state_(std::move(state)) {}
Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this != &other) {
    end_handle(state_);
    state_ = std::move(other.state_);
  }
  return *this;
}
Mapping::~Mapping() { end_handle(state_); }

engine::MappingState& Mapping::used() const {
  if (!state_)
    throw Error(Errc::invalid_argument,
                "this mapping has no file: it was closed, moved from, or not made by Runtime::map");
  state_->require_own_process();
  return *state_;
}

const std::string& Mapping::path() const noexcept { return state_->file().path(); }
Access Mapping::access() const noexcept { return state_->access(); }
ByteCount Mapping::granule() const noexcept { return state_->file().granule().bytes(); }
ByteCount Mapping::size_bytes() const noexcept { return state_ ? state_->size() : ByteCount{0}; }
std::byte* Mapping::host_pointer(bool writable) const { return used().host_pointer(writable); }

void Mapping::read(ByteOffset at, std::span<std::byte> into, std::optional<HostAccess> how) const {
  used().read(at, into, how.value_or(used().host_access()));
}
void Mapping::write(ByteOffset at, std::span<const std::byte> from, std::optional<HostAccess> how) const {
  used().write(at, from, how.value_or(used().host_access()));
}
void Mapping::read_direct(ByteOffset at, std::span<std::byte> into) const { used().read_direct(at, into); }
void Mapping::write_direct(ByteOffset at, std::span<const std::byte> from) const {
  used().write_direct(at, from);
}
ByteCount Mapping::direct_alignment() const noexcept { return state_->file().file().direct_alignment(); }

void Mapping::sync() const { used().sync(whole(*this)); }
void Mapping::sync(ByteRange range) const { used().sync(range); }
void Mapping::advise(ByteRange range, Advice advice) const { used().advise(range, advice); }
void Mapping::prefetch(ByteRange range, unsigned device, Right right) const {
  used().prefetch(range, device, right);
}
void Mapping::prefetch_home(ByteRange range) const { used().prefetch_home(range); }
void Mapping::resize(ByteCount size) { used().resize(size); }
void Mapping::discard(ByteRange range) const { used().discard(range); }
HostLease Mapping::host_lease(ByteRange range, Right right) const {
  return used().host_lease(state_, range, right);
}
std::vector<GranuleReport> Mapping::snapshot(ByteRange range) const { return used().snapshot(range); }

void Mapping::close() {
  if (!state_) return;
  if (state_->is_in_child_process()) return end_handle(state_);
  const std::shared_ptr<engine::MappingState> state = std::move(state_);
  engine::throw_if_failed(state->close(), state->file().path(), "close");
}

}  // namespace aprime
