#include "host/device/device_fault.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <ucontext.h>

#include <cassert>
#include <cstring>
#include <utility>

#include "host/device/executor.hpp"

namespace aprime::device {

namespace {

/// In the initial-exec model, because the first use of another kind may allocate, and this one is in a
/// handler.
thread_local constinit unsigned serving_depth [[gnu::tls_model("initial-exec")]] = 0;

// KernelFault::kind holds the reason and what there is of a Status; `source` is the region's number, plus
// one, and null where there is none.
constexpr unsigned kCodeShift = 8;
constexpr unsigned kErrorShift = 16;

int pack(FaultReason reason, Status status) noexcept {
  return static_cast<int>(reason) | static_cast<int>(status.code) << kCodeShift |
         status.system_error << kErrorShift;
}
FaultReason reason_of(int kind) noexcept { return static_cast<FaultReason>(kind & 0xff); }
Status status_of(int kind) noexcept {
  return {static_cast<Errc>(kind >> kCodeShift & 0xff), kind >> kErrorShift, {}};
}

const void* to_source(RegionId region) noexcept {
  return reinterpret_cast<const void*>(std::uintptr_t{region} + 1);  // NOLINT(performance-no-int-to-ptr)
}
std::optional<RegionId> region_of(const void* source) noexcept {
  if (source == nullptr) return std::nullopt;
  return static_cast<RegionId>(reinterpret_cast<std::uintptr_t>(source) - 1);
}

/// Of a fault that is a defect of the kernel.
FaultReason reason_for(const os::Trap& trap) noexcept {
  if (trap.signal != SIGFPE)
    return is_below_current_stack(trap.address) ? FaultReason::stack : FaultReason::wild_pointer;
  constexpr greg_t kDivideError = 0;  // Intel SDM volume 3, "Exception and Interrupt Reference"
  const auto& registers = static_cast<const ucontext_t*>(trap.context)->uc_mcontext.gregs;
  return registers[REG_TRAPNO] == kDivideError ? FaultReason::division : FaultReason::floating_point;
}

std::string why_refused(Status status, bool write) {
  const auto with_errno = [&](const char* text) {
    return status.system_error == 0 ? std::string(text)
                                    : fmt::format("{} ({})", text, std::strerror(status.system_error));
  };
  switch (status.code) {
    case Errc::out_of_range: return "which is beyond the end of the file";
    case Errc::access_denied:
      return write ? "but the file is mapped for reading only" : "but the file may not be read";
    case Errc::io: return with_errno("but reading or writing the file failed");
    case Errc::no_space:
      return with_errno("but the file system has no space for what had to be written back");
    case Errc::device_memory: return "but all device memory is in use by leases; give the device more memory";
    case Errc::resources: return with_errno("but the machine is out of memory or of memory areas");
    default: return with_errno("but the fault could not be served");
  }
}

}  // namespace

KernelFault fault_in_file(FaultReason reason, RegionId region, ByteOffset at, bool write,
                          Status status) noexcept {
  return {pack(reason, status), at.value, write, to_source(region)};
}

KernelFault fault_elsewhere(FaultReason reason, std::uint64_t place, bool write, Status status) noexcept {
  return {pack(reason, status), place, write, nullptr};
}

void stop_trapped_kernel(const os::Trap& trap, const KernelFault& fault) noexcept {
  redirect_to_stop(*static_cast<ucontext_t*>(trap.context), fault);
}

void RegionNames::set(RegionId region, const std::string& path) {
  const sync::Lock lock(mutex_);
  paths_[region] = path;
}

std::string RegionNames::get(RegionId region) const {
  const sync::Lock lock(mutex_);
  const auto found = paths_.find(region);
  return found == paths_.end() ? std::string() : found->second;
}

void describe_fault(const KernelFault& fault, const RegionNames& names, DeviceFaultStatus& out) {
  const std::optional<RegionId> region = region_of(fault.source);
  out.was_write = fault.write;
  out.system_error = 0;
  out.path = region ? names.get(*region) : std::string();
  out.offset = ByteOffset{region ? fault.offset : 0};

  const std::string kernel = "kernel " + out.kernel;
  const std::string access = region
                                 ? fmt::format("{} {} {} at offset {}", kernel,
                                               fault.write ? "stored to" : "loaded", out.path, fault.offset)
                                 : fmt::format("{} {}", kernel, fault.write ? "stored" : "loaded");
  switch (reason_of(fault.kind)) {
    case FaultReason::refused: {
      const Status status = status_of(fault.kind);
      out.code = status.code;
      out.system_error = status.system_error;
      out.message = fmt::format("{}, {}", access, why_refused(status, fault.write));
      break;
    }
    case FaultReason::store_under_read_lease:
      out.code = Errc::access_denied;
      out.message = access + " under a read lease";
      break;
    case FaultReason::outside_lease:
      out.code = Errc::out_of_range;
      out.message = access + " outside any lease";
      if (!region) {
        const auto distance = static_cast<std::int64_t>(fault.offset);
        out.message += fmt::format(": device address {}{:#x} belongs to no lease", distance < 0 ? '-' : '+',
                                   distance < 0 ? 0 - fault.offset : fault.offset);
      }
      break;
    case FaultReason::outside_span:
      out.code = Errc::out_of_range;
      out.message = access + ", which is beyond the end of its span, or its span begins within an element";
      break;
    case FaultReason::wild_pointer:
      out.code = Errc::kernel_failed;
      out.message = fmt::format("{} {} address {:#x}, which is no device memory", kernel,
                                fault.write ? "stored to" : "loaded", fault.offset);
      break;
    case FaultReason::stack:
      out.code = Errc::kernel_failed;
      out.message =
          fmt::format("{} used more than {} KiB of stack", kernel, Executor::kernel_stack_bytes >> 10);
      break;
    case FaultReason::division:
      out.code = Errc::kernel_failed;
      out.message = kernel + " divided by zero, or the smallest integer by -1";
      break;
    case FaultReason::floating_point:
      out.code = Errc::kernel_failed;
      out.message = kernel + " raised a floating-point exception, which the program has enabled";
      break;
  }
}

// Not for ThreadSanitizer, which calls the fibers of one thread threads, and so sees races for its
// thread-locals.
__attribute__((no_sanitize("thread"))) ServingFault::ServingFault() noexcept { ++serving_depth; }
__attribute__((no_sanitize("thread"))) ServingFault::~ServingFault() { --serving_depth; }

os::TrapTarget::Answer KernelDefectTrap::on_trap(const os::Trap& trap) noexcept {
  if (!on_device_thread() || serving_depth != 0) return Answer::not_mine;
  const auto address = reinterpret_cast<std::uintptr_t>(trap.address);
  stop_trapped_kernel(trap, fault_elsewhere(reason_for(trap), address, trap.write));
  return Answer::resolved;
}

}  // namespace aprime::device
