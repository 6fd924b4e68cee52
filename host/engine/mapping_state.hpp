#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "aprime/access.hpp"
#include "aprime/lease.hpp"
#include "aprime/mapping.hpp"
#include "aprime/units.hpp"
#include "host/engine/coherent_file.hpp"
#include "host/engine/host_view.hpp"
#include "host/sync/mutex.hpp"

namespace aprime::engine {

class RuntimeState;

/// What a Mapping handle refers to: a range of a coherent file, the rights of this mapping, and its host view
/// once somebody asked for a pointer. Offsets given to its members count from the start of the mapping.
class MappingState {
 public:
  MappingState(std::shared_ptr<RuntimeState> runtime, std::shared_ptr<CoherentFile> file, ByteRange range,
               Access access, HostAccess host_access);
  ~MappingState();
  MappingState(const MappingState&) = delete;
  MappingState& operator=(const MappingState&) = delete;

  CoherentFile& file() const noexcept { return *file_; }
  const std::shared_ptr<CoherentFile>& shared_file() const noexcept { return file_; }
  Access access() const noexcept { return access_; }
  ByteCount size() const noexcept { return ByteCount{size_.load(std::memory_order_acquire)}; }
  bool is_in_child_process() const noexcept;
  /// As RuntimeState's.
  void require_own_process() const;

  /// The range in the file. \throws Error(out_of_range) if it does not lie in the mapping
  ByteRange in_file(ByteRange range, const char* doing) const;

  /// The view's address of the mapping's first byte; null for an empty mapping. \throws Error
  std::byte* host_pointer(bool writable);

  void read(ByteOffset at, std::span<std::byte> into, HostAccess how);
  void write(ByteOffset at, std::span<const std::byte> from, HostAccess how);
  void read_direct(ByteOffset at, std::span<std::byte> into);
  void write_direct(ByteOffset at, std::span<const std::byte> from);
  HostAccess host_access() const noexcept { return host_access_; }

  void sync(ByteRange range);
  void advise(ByteRange range, Advice advice);
  void prefetch(ByteRange range, unsigned device, Right right);
  void prefetch_home(ByteRange range);
  void resize(ByteCount size);
  void discard(ByteRange range);
  HostLease host_lease(const std::shared_ptr<MappingState>& self, ByteRange range, Right right);
  std::vector<GranuleReport> snapshot(ByteRange range) const;

  /// Ends the mapping once no launch uses it: removes the view and, if it was the file's last mapping, copies
  /// dirty bytes home. While a host lease holds some of the file it is not forgotten; the end of the last one
  /// calls this again.
  Status close() noexcept;
  /// For a launch: the file stays until `end_use`. False if the mapping is closed.
  bool begin_use() noexcept;
  void end_use() noexcept;
  /// The same for a host lease, for which `close` does not wait.
  void begin_host_lease() noexcept;
  void end_host_lease() noexcept;

  bool is_of(const RuntimeState& runtime) const noexcept { return runtime_.get() == &runtime; }
  /// \throws Error(access_denied)
  void require_writable(const char* doing) const;
  /// \throws Error(out_of_range) if the file ends before the range (given as in the file) does
  void require_in_file(ByteRange range, const char* doing) const;

 private:
  const std::shared_ptr<HostView>& view() APRIME_REQUIRES(mutex_);

  // Constant after construction.
  const std::shared_ptr<RuntimeState> runtime_;
  const std::shared_ptr<CoherentFile> file_;
  const ByteOffset first_;
  const Access access_;
  const HostAccess host_access_;

  std::atomic<std::uint64_t> size_;
  mutable sync::Mutex mutex_{sync::LockRank::file};
  /// On the file's list of views until its last holder, a host lease perhaps, lets go.
  std::shared_ptr<HostView> view_ APRIME_GUARDED_BY(mutex_);
  WritebackErrors::Seen errors_seen_ APRIME_GUARDED_BY(mutex_);
  std::condition_variable_any unused_;
  unsigned uses_ APRIME_GUARDED_BY(mutex_) = 0;
  unsigned host_leases_ APRIME_GUARDED_BY(mutex_) = 0;
  /// Not to be used by further launches; and not counted with the file any more.
  bool closed_ APRIME_GUARDED_BY(mutex_) = false;
  bool released_ APRIME_GUARDED_BY(mutex_) = false;
};

/// A launch's hold on a mapping.
class MappingUse {
 public:
  /// Holds nothing if the mapping has ended or is closed.
  explicit MappingUse(std::shared_ptr<MappingState> mapping) noexcept
      : mapping_(mapping != nullptr && mapping->begin_use() ? std::move(mapping) : nullptr) {}
  MappingUse(MappingUse&&) noexcept = default;
  MappingUse& operator=(MappingUse&& other) noexcept {
    std::swap(mapping_, other.mapping_);
    return *this;
  }
  ~MappingUse() {
    if (mapping_ != nullptr) mapping_->end_use();
  }
  MappingState* get() const noexcept { return mapping_.get(); }

 private:
  std::shared_ptr<MappingState> mapping_;
};

}  // namespace aprime::engine
