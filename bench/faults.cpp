#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "bench/device.hpp"
#include "bench/figure.hpp"
#include "bench/plain.hpp"

// One granule at a time. A round serves kFaults of them, so that the clock's own cost and resolution do not
// matter; Advice::random, so that each of them is a fault.

namespace aprime::bench {
namespace {

using namespace aprime::literals;

constexpr std::uint64_t kFaults = 1024;
constexpr ByteCount kFile{kFaults * kPage};
constexpr ByteCount kDeviceMemory{4 * kFaults * kPage};

void touch_each(const std::byte* data) noexcept {
  for (std::uint64_t i = 0; i < kFaults; ++i) touch(data + i * kPage);
}
void store_each(std::byte* data) noexcept {
  for (std::uint64_t i = 0; i < kFaults; ++i) store(data + i * kPage, std::byte{1});
}

/// What the bare handlers need; one experiment uses it at a time.
struct Bare {
  const BareUserfault* device = nullptr;
  const std::byte* alias = nullptr;
  /// The host pointer's view; null where the program holds none.
  std::byte* view = nullptr;
  std::byte* staging = nullptr;
  int fd = -1;
};
constinit Bare bare{};

std::byte* page_of(const siginfo_t* info) noexcept {
  return reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(info->si_addr) & ~(kPage - 1));
}
void protect_view(std::size_t at, int protection) noexcept {
  if (bare.view != nullptr && ::mprotect(bare.view + at, kPage, protection) != 0) std::abort();
}

void serve_read(int, siginfo_t* info, void*) {
  std::byte* const page = page_of(info);
  const auto at = static_cast<std::size_t>(page - bare.device->data());
  protect_view(at, PROT_READ);
  bare.device->copy_protected(page, bare.alias + at, kPage);
}
void serve_upgrade(int, siginfo_t* info, void*) {
  std::byte* const page = page_of(info);
  protect_view(static_cast<std::size_t>(page - bare.device->data()), PROT_NONE);
  bare.device->unprotect(page, kPage);
}
void serve_host_read(int, siginfo_t* info, void*) {
  std::byte* const page = page_of(info);
  const auto at = static_cast<std::size_t>(page - bare.view);
  std::memcpy(bare.staging, bare.device->data() + at, kPage);
  if (::pwrite(bare.fd, bare.staging, kPage, static_cast<off_t>(at)) != static_cast<ssize_t>(kPage))
    std::abort();
  protect_view(at, PROT_READ);
}

enum class Pointer : bool { none, held };

/// Rights that go to the device: a read fault on what only the host has, or a store to what the device may
/// read.
class DeviceFault final : public Experiment {
 public:
  DeviceFault(bool upgrade, Pointer pointer) : upgrade_(upgrade), pointer_(pointer) {}

  Sample round() override { return {measure_ours(), measure_bare()}; }

 private:
  double measure_ours() {
    const Mapping mapping = runtime_.map(file_.path(), Access::read_write);
    mapping.advise(all_of(mapping), Advice::random);
    if (pointer_ == Pointer::held) store_each(mapping.host<std::byte>().data());
    const double reading = timed_on_device(runtime_, read(mapping), touch_each);
    if (!upgrade_) return reading;
    return timed_on_device(runtime_, read_write(mapping), store_each);
  }

  double measure_bare() {
    const BareUserfault device(kFile);
    const PlainMemory alias = PlainMemory::of(file_, PROT_READ);
    std::optional<PlainMemory> view;
    if (pointer_ == Pointer::held) view.emplace(PlainMemory::of(file_, PROT_READ | PROT_WRITE));
    if (view) store_each(view->data());
    bare = {.device = &device, .alias = alias.data(), .view = view ? view->data() : nullptr};
    const double reading = timed(serve_read, [&] { touch_each(device.data()); });
    if (!upgrade_) return reading;
    return timed(serve_upgrade, [&] { store_each(device.data()); });
  }

  template <class Body>
  static double timed(SignalScope::Handler handler, Body body) {
    const SignalScope scope(SIGBUS, handler);
    const double start = now();
    body();
    return now() - start;
  }

  const bool upgrade_;
  const Pointer pointer_;
  const PlainFile file_{kFile, true};
  Runtime runtime_{quiet(DeviceKind::emulated, 4_KiB, kDeviceMemory)};
};

/// The CPU reads, through its pointer, granules that a device has stored to.
class HostRead final : public Experiment {
 public:
  Sample round() override { return {measure_ours(), measure_bare()}; }

 private:
  double measure_ours() {
    const Mapping mapping = runtime_.map(file_.path(), Access::read_write);
    mapping.advise(all_of(mapping), Advice::random);
    const std::byte* const view = mapping.host<const std::byte>().data();
    timed_on_device(runtime_, read_write(mapping), store_each);
    const double start = now();
    touch_each(view);
    return now() - start;
  }

  double measure_bare() {
    const BareUserfault device(kFile);
    const PlainMemory alias = PlainMemory::of(file_, PROT_READ);
    const PlainMemory view = PlainMemory::of(file_, PROT_READ | PROT_WRITE);
    alignas(kPage) std::array<std::byte, kPage> staging;
    bare = {&device, alias.data(), view.data(), staging.data(), file_.fd()};
    for (std::uint64_t i = 0; i < kFaults; ++i) {
      device.copy_protected(device.data() + i * kPage, alias.data() + i * kPage, kPage);
      device.unprotect(device.data() + i * kPage, kPage);
    }
    check(::mprotect(view.data(), view.size(), PROT_NONE) == 0, "mprotect");
    const SignalScope scope(SIGSEGV, serve_host_read);
    const double start = now();
    touch_each(view.data());
    return now() - start;
  }

  const PlainFile file_{kFile, true};
  Runtime runtime_{quiet(DeviceKind::emulated, 4_KiB, kDeviceMemory)};
};

}  // namespace

void add_faults(Figures& figures) {
  const auto add = [&](const char* key, const char* text, const char* floor, auto make) {
    figures.push_back({key, text, floor, Unit::microseconds, static_cast<double>(kFaults),
                       Goal::ratio_at_most, 1.5, 31, make});
  };
  add("read_fault", "device read fault, 4 KiB", "bare SIGBUS, UFFDIO_COPY",
      [] { return std::make_unique<DeviceFault>(false, Pointer::none); });
  add("read_fault_pointer", "the same, host pointer held", "the same, mprotect",
      [] { return std::make_unique<DeviceFault>(false, Pointer::held); });
  add("write_upgrade", "device write upgrade, 4 KiB", "bare SIGBUS, UFFDIO_WRITEPROTECT",
      [] { return std::make_unique<DeviceFault>(true, Pointer::none); });
  add("write_upgrade_pointer", "the same, host pointer held", "the same, mprotect",
      [] { return std::make_unique<DeviceFault>(true, Pointer::held); });
  add("host_read", "CPU read of a device-dirty 4 KiB granule by pointer",
      "bare SIGSEGV, copy, pwrite, mprotect", [] { return std::make_unique<HostRead>(); });
}

}  // namespace aprime::bench
