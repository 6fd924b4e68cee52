#include <fmt/format.h>

#include <cstdlib>
#include <new>
#include <thread>

#include "host/engine/mapping_state.hpp"
#include "tests/contract/kernels.hpp"
#include "tests/fault/guarded_access.hpp"
#include "tests/fault/scenario.hpp"

namespace aprime::fault {

using contract::CopyBytes;
using contract::CopyOnDemand;
using contract::kPage;
using contract::range;
using contract::StoreEverywhere;

namespace {

std::size_t size_of(ByteRange r) { return static_cast<std::size_t>(r.size.value); }
std::size_t start_of(ByteRange r) { return static_cast<std::size_t>(r.first.value); }

/// A buffer that direct I/O may use.
class AlignedBuffer {
 public:
  explicit AlignedBuffer(std::size_t size)
      : bytes_(static_cast<std::byte*>(::operator new (size, std::align_val_t{kPage})), size) {}
  ~AlignedBuffer() { ::operator delete (bytes_.data(), std::align_val_t{kPage}); }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

constexpr Grid kGrid{{2}, {64}, 0};

std::uint64_t errors_of(const Mapping& m) { return m.state()->file().errors().now(); }

}  // namespace

Mapping* Scenario::holder_of(ModelFile& file) {
  for (auto& holder : file.holders)
    if (holder) return &*holder;
  return nullptr;
}

void Scenario::map_one(ModelFile& file, std::size_t h) {
  if (file.holders[h]) return;
  attempt("map", [&] {
    file.holders[h].emplace(runtime_->map(file.path, Access::read_write));
    file.heard[h] = errors_of(*file.holders[h]);
    if (file.holders[h]->size_bytes().value != file.shadow.size())
      defect("map", fmt::format("{} bytes of {}", file.holders[h]->size_bytes().value, file.shadow.size()));
  });
}

void Scenario::map_all() {
  for (ModelFile* file : {&big_, &small_})
    for (std::size_t h = 0; h < file->holders.size(); ++h) map_one(*file, h);
}

void Scenario::fill_on_device(ModelFile& file, ByteRange r, unsigned device) {
  Mapping* m = holder_of(file);
  if (m == nullptr) return;
  const unsigned value = next_value();
  const Outcome outcome = attempt("fill on the device", [&] {
    runtime_
        ->launch(kGrid, {.device = device, .name = "fill"}, StoreEverywhere{}, aprime::write(*m, r),
                 static_cast<contract::Byte>(value))
        .wait();
  });
  if (outcome == Outcome::done) return file.shadow.store(start_of(r), size_of(r), value);
  // A write lease gives up the old bytes before the kernel runs.
  file.shadow.store_or_not(start_of(r), size_of(r), value);
  file.shadow.store_or_not(start_of(r), size_of(r), 0);
}

void Scenario::store_on_device(ModelFile& file, ByteRange r, unsigned device) {
  Mapping* m = holder_of(file);
  if (m == nullptr || r.end().value > file.shadow.size()) return;
  const unsigned value = next_value();
  const Outcome outcome = attempt("store on the device", [&] {
    runtime_
        ->launch(kGrid, {.device = device, .name = "store"}, StoreEverywhere{}, aprime::read_write(*m, r),
                 static_cast<contract::Byte>(value))
        .wait();
  });
  outcome == Outcome::done ? file.shadow.store(start_of(r), size_of(r), value)
                           : file.shadow.store_or_not(start_of(r), size_of(r), value);
}

void Scenario::copy_on_device(ModelFile& from, ByteRange r, ModelFile& to, unsigned device) {
  Mapping* source = holder_of(from);
  Mapping* target = holder_of(to);
  if (source == nullptr || target == nullptr || r.end().value > to.shadow.size()) return;
  const Outcome outcome = attempt("copy on the device", [&] {
    runtime_
        ->launch(kGrid, {.device = device, .name = "copy"}, CopyBytes{}, aprime::read(*source, r),
                 aprime::read_write(*target, r))
        .wait();
  });
  outcome == Outcome::done ? to.shadow.copy(start_of(r), size_of(r), from.shadow, start_of(r))
                           : to.shadow.copy_or_not(start_of(r), size_of(r), from.shadow, start_of(r));
}

void Scenario::copy_on_demand(ModelFile& from, ByteRange r, ModelFile& to, unsigned device) {
  Mapping* source = holder_of(from);
  Mapping* target = holder_of(to);
  if (source == nullptr || target == nullptr || r.end().value > to.shadow.size()) return;
  const Outcome outcome = attempt("copy by faults on the device", [&] {
    runtime_
        ->launch(kGrid, {.device = device, .name = "copy"}, CopyOnDemand{}, aprime::demand_read(*source, r),
                 aprime::demand_read_write(*target, r))
        .wait();
  });
  outcome == Outcome::done ? to.shadow.copy(start_of(r), size_of(r), from.shadow, start_of(r))
                           : to.shadow.copy_or_not(start_of(r), size_of(r), from.shadow, start_of(r));
}

void Scenario::read(ModelFile& file, ByteRange r, std::optional<HostAccess> how) {
  Mapping* m = holder_of(file);
  if (m == nullptr || r.end().value > file.shadow.size()) return;
  Bytes bytes(size_of(r));
  if (attempt("read", [&] { m->read(r.first, bytes, how); }) == Outcome::done)
    see(file, "read", r.first.value, bytes);
}

void Scenario::write(ModelFile& file, ByteRange r, std::optional<HostAccess> how) {
  Mapping* m = holder_of(file);
  if (m == nullptr) return;
  const unsigned value = next_value();
  const Bytes bytes(size_of(r), static_cast<std::byte>(value));
  attempt("write", [&] { m->write(r.first, bytes, how); }) == Outcome::done
      ? file.shadow.store(start_of(r), size_of(r), value)
      : file.shadow.store_or_not(start_of(r), size_of(r), value);
}

void Scenario::read_direct(ModelFile& file, ByteRange r) {
  Mapping* m = holder_of(file);
  if (m == nullptr) return;
  const AlignedBuffer buffer(size_of(r));
  if (attempt("direct read", [&] { m->read_direct(r.first, buffer.bytes()); }) == Outcome::done)
    see(file, "direct read", r.first.value, Bytes(buffer.bytes().begin(), buffer.bytes().end()));
}

void Scenario::write_direct(ModelFile& file, ByteRange r) {
  Mapping* m = holder_of(file);
  if (m == nullptr) return;
  const unsigned value = next_value();
  const AlignedBuffer buffer(size_of(r));
  std::fill(buffer.bytes().begin(), buffer.bytes().end(), static_cast<std::byte>(value));
  attempt("direct write", [&] { m->write_direct(r.first, buffer.bytes()); }) == Outcome::done
      ? file.shadow.store(start_of(r), size_of(r), value)
      : file.shadow.store_or_not(start_of(r), size_of(r), value);
}

void Scenario::load_by_pointer(ModelFile& file, ByteRange r) {
  Mapping* m = holder_of(file);
  if (m == nullptr) return;
  const std::byte* at = nullptr;
  if (attempt("pointer", [&] { at = m->host<const std::byte>().data() + r.first.value; }) == Outcome::failed)
    return;
  Bytes bytes(size_of(r));
  if (copy_guarded(bytes.data(), at, bytes.size()))
    see(file, "load by pointer", r.first.value, bytes);
  else if (recovering_)
    defect("load by pointer", "SIGBUS although nothing fails any more");
}

void Scenario::store_by_pointer(ModelFile& file, ByteRange r) {
  Mapping* m = holder_of(file);
  if (m == nullptr) return;
  std::byte* at = nullptr;
  if (attempt("pointer", [&] { at = m->host<std::byte>().data() + r.first.value; }) == Outcome::failed)
    return;
  const unsigned value = next_value();
  const Bytes bytes(size_of(r), static_cast<std::byte>(value));
  if (copy_guarded(at, bytes.data(), bytes.size())) return file.shadow.store(start_of(r), size_of(r), value);
  if (recovering_) defect("store by pointer", "SIGBUS although nothing fails any more");
  file.shadow.store_or_not(start_of(r), size_of(r), value);
}

void Scenario::store_by_lease(ModelFile& file, ByteRange r) {
  Mapping* m = holder_of(file);
  if (m == nullptr) return;
  const unsigned value = next_value();
  attempt("host lease", [&] {
    const HostLease lease = m->host_lease(r, Right::read_write);
    // Inside a lease no access traps, so that it could be a system call's.
    std::fill(lease.bytes().begin(), lease.bytes().end(), static_cast<std::byte>(value));
    file.shadow.store(start_of(r), size_of(r), value);
  });
}

void Scenario::move_about(ModelFile& file) {
  Mapping* m = holder_of(file);
  if (m == nullptr) return;
  const ByteRange some = contract::granules(2, 8);
  attempt("prefetch", [&] { m->prefetch(some, 1, Right::read); });
  attempt("prefetch for writing", [&] { m->prefetch(some, 0, Right::read_write); });
  attempt("advise", [&] { m->advise(some, Advice::random); });
  attempt("advise", [&] { m->advise(some, Advice::normal); });
  attempt("prefetch home", [&] { m->prefetch_home(contract::granules(4, 3)); });
}

void Scenario::discard(ModelFile& file, ByteRange r) {
  Mapping* m = holder_of(file);
  if (m == nullptr) return;
  attempt("discard", [&] { m->discard(r); }) == Outcome::done
      ? file.shadow.store(start_of(r), size_of(r), 0)
      : file.shadow.store_or_not(start_of(r), size_of(r), 0);
}

void Scenario::resize(ModelFile& file, std::size_t size) {
  Mapping* m = holder_of(file);
  if (m == nullptr) return;
  const std::size_t before = file.shadow.size();
  const bool is_done = attempt("resize", [&] { m->resize(ByteCount{size}); }) == Outcome::done;
  const std::size_t now = contract::plain_size(file.path);
  if (now != (is_done ? size : before))
    defect("resize", fmt::format("from {} to {}: the file has {} bytes", before, size, now));
  if (m->size_bytes().value != now)
    defect("resize", fmt::format("from {} to {}: the mapping has {} bytes, the file {}", before, size,
                                 m->size_bytes().value, now));
  file.shadow.resize(now);
}

void Scenario::sync(ModelFile& file, std::size_t h, ByteRange r) {
  if (!file.holders[h]) return;
  Mapping& m = *file.holders[h];
  const std::uint64_t errors = errors_of(m);
  bool is_done = false;
  if (recovering_) {
    // An error that this holder has not heard of: it must hear of it now, and only now. One may still arrive
    // here, from a flusher that was inside the failing call when the plan ended.
    try {
      m.sync(r);
      is_done = true;
    } catch (const Error& e) {
      if (errors_of(m) == file.heard[h] && !file.may_hear_more[h])
        judge("sync", e.code(), e.system_error(), e.what(), e.path(), e.offset());
      file.heard[h] = errors_of(m);
      is_done = attempt("sync again", [&] { m.sync(r); }) == Outcome::done;
    }
  } else {
    is_done = attempt("sync", [&] { m.sync(r); }) == Outcome::done;
  }
  if (is_done && errors > file.heard[h]) defect("sync", "kept quiet about a failed writeback");
  file.heard[h] = errors_of(m);
  file.may_hear_more[h] = !is_done && options_.with_flusher;
  if (is_done) see_plain(file, "what is on disk after sync", r);
}

void Scenario::close(ModelFile& file, std::size_t h) {
  if (!file.holders[h]) return;
  attempt("close", [&] { file.holders[h]->close(); });
  file.holders[h].reset();
}

void Scenario::wait_for_flusher() {
  if (!options_.with_flusher) return;
  // Where nothing fails it comes, however slow the machine is.
  const auto has_failed = [] { return os::sys::faults_injected() != 0; };
  for (int i = 0; i < (has_failed() ? 20 : 1000) && runtime_->stats().dirty_bytes != 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

void Scenario::see(ModelFile& file, const char* doing, std::uint64_t at, const Bytes& seen) {
  if (const auto wrong = file.shadow.see(static_cast<std::size_t>(at), seen))
    defect(doing, fmt::format("{}: {}", file.path, *wrong));
}

void Scenario::see_plain(ModelFile& file, const char* doing, ByteRange r) {
  see(file, doing, r.first.value, contract::plain_read(file.path, r));
}

}  // namespace aprime::fault
