#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <tuple>
#include <typeinfo>
#include <utility>
#include <vector>

#include "aprime/access.hpp"
#ifdef __CUDACC__
#include "aprime/cuda.hpp"
#endif
#include "aprime/launch.hpp"
#include "aprime/mapping.hpp"
#include "aprime/mount.hpp"
#include "aprime/stats.hpp"
#include "aprime/units.hpp"

namespace aprime {

/// Which device to make.
enum class DeviceKind : std::uint8_t {
  /// The best there is on this machine.
  automatic,
  /// Emulated, hardware-paged: kernels may touch any mapped byte; faults are served while they run.
  emulated,
  /// Emulated, software-paged as CUDA is: kernels may touch only what their launch leased. An access to a
  /// granule that is not leased stops them; one beside what is leased of a granule is not noticed.
  emulated_strict,
  /// The first GPU that CUDA shows (see CUDA_VISIBLE_DEVICES), software-paged. Only in a library that was
  /// built with CUDA.
  cuda,
};

/// What a CUDA device's frames are made of.
enum class DeviceMemoryKind : std::uint8_t {
  /// cudaMalloc.
  device,
  /// cudaMallocManaged, with the GPU as its preferred location: other CUDA code of the program may use the
  /// addresses on the CPU.
  managed,
};

struct DeviceOptions {
  DeviceKind kind = DeviceKind::automatic;
  /// Device memory budget in bytes; at least 16 granules, and at most what a GPU has free.
  ByteCount memory{std::uint64_t{256} << 20};
  /// CPU threads that run its kernels, 4096 at most; one for each CPU if 0.
  unsigned workers = 0;
  /// For tests: behave as on a machine without userfaultfd.
  bool without_userfaultfd = false;
  /// For a CUDA device.
  DeviceMemoryKind memory_kind = DeviceMemoryKind::device;
};

struct RuntimeOptions {
  std::vector<DeviceOptions> devices{DeviceOptions{}};
  /// Default granule of mappings, and the frame size of the devices.
  ByteCount granule{std::uint64_t{64} << 10};
  HostAccess host_access = HostAccess::adaptive;
  /// The background flusher copies dirty granules home when there are more dirty bytes than this ...
  ByteCount dirty_bytes_max{std::uint64_t{128} << 20};
  /// ... or when bytes have been dirty for longer than this. Zero turns the flusher off; a negative one is
  /// refused.
  std::chrono::milliseconds dirty_age_max{5000};
};

/// What a device is.
struct DeviceInfo {
  /// Name as in `--device`: cuda, emulated, emulated-strict.
  std::string name;
  /// What it is in words, and how it traps.
  std::string description;
  /// Why it was chosen: it was asked for, or the best there is, and then why there is nothing better.
  std::string chosen_because{};
  bool hardware_paged = false;
  ByteCount memory{};
  /// CPU threads, or multiprocessors of a GPU.
  unsigned workers = 0;
};

/// Something of the machine that aprime can use, and what it means if it is not there.
struct Feature {
  std::string name;
  bool available = false;
  std::string detail;
  /// What its absence costs, and how to get it; empty where it is available.
  std::string cost;
  std::string remedy;
};

/// Looks at the machine: kernel features, limits, devices. Changes nothing.
std::vector<Feature> probe_features();

namespace engine {
class RuntimeState;
}

/// Owns devices, their memory and threads, and every file that is mapped through it. Several may exist; each
/// is a world of its own: mappings of one file in two runtimes see each other as other processes do.
/// Thread-safe. One that was moved from may only be destroyed.
///
/// A child made by fork() has none of its parent's threads and device memory. What it inherits of a runtime
/// it may destroy, and close mappings, which does nothing; what would need those throws
/// Error(invalid_argument). It may make a runtime of its own.
class Runtime {
 public:
  /// One device, the best there is. \throws Error(resources)
  Runtime();
  /// \throws Error(invalid_argument) that names the option; Error(resources)
  explicit Runtime(const RuntimeOptions& options);
  Runtime(Runtime&&) noexcept = default;
  Runtime& operator=(Runtime&&) = delete;
  /// As `close`; what cannot be written home is reported on stderr, for want of a caller.
  ~Runtime();

  /// Maps a regular file. Two mappings of one file (the same inode) share one directory and see the same
  /// bytes.
  /// \throws Error(cannot_open) what is wrong with the file and what to do; Error(invalid_argument) offset or
  /// granule;
  ///         Error(out_of_range) the file ends before the range does; Error(conflict) the file is mapped with
  ///         another granule; Error(resources)
  Mapping map(const std::string& path, Access access, const MapOptions& options = {});

  /// Runs `kernel(args...)` once for each thread of `grid` on a device, after earlier launches on that
  /// device. Returns at once; what goes wrong later appears in the completion.
  ///
  /// Arguments made by `aprime::read`, `write` and `read_write` are leases: a kernel receives them as
  /// `LeasedBytes` (convertible to `LeasedSpan<T>`). Those made by `demand_read` and `demand_read_write` are
  /// received as `DemandBytes` (convertible to `device_span<T>`), and faulted in as the kernel touches them.
  /// Other arguments are copied.
  ///
  /// On a hardware-paged device leases are faulted in as well. On a software-paged one all leases of a launch
  /// must fit its memory together, as must each granule that it may fault on, else it ends with
  /// Errc::device_memory. They are taken while the launch before it runs, where both fit and neither faults:
  /// host accesses wait from then on, so no kernel may wait for one to what a later launch leases. While a
  /// launch with both kinds of arguments runs, other devices' launches wait that lease of a file that it may
  /// fault on, because two could wait for each other.
  ///
  /// A file that a plain C++ compiler compiles launches for every device; on CUDA one that nvcc compiles must
  /// name the kernel (APRIME_CUDA_KERNEL in aprime/cuda.hpp). A launch that nvcc compiles is for CUDA only.
  /// \throws Error(invalid_argument) no such device, an impossible grid, a mapping that was closed or is
  /// another runtime's;
  ///         Error(out_of_range) a range beyond its mapping; Error(access_denied) a write right on a mapping
  ///         for reading
  template <class Kernel, class... Args, class Compiler = detail::ThisCompiler>
  Completion launch(const Grid& grid, const LaunchOptions& options, Kernel kernel, const Args&... args) {
    constexpr bool can_call = Compiler::template can_call<const Kernel, const detail::Bound<Args>...>;
    constexpr bool changes_itself =
        !can_call && Compiler::template can_call<Kernel, const detail::Bound<Args>...>;
    static_assert(!changes_itself,
                  "all threads of a launch share the kernel: make its operator() const, and a lambda not "
                  "mutable");
    static_assert(
        can_call || changes_itself,
        "the kernel cannot be called with what it is launched with: read(m) becomes "
        "LeasedSpan<const T>, read_write(m) LeasedSpan<T>, demand_read(m) device_span<const T>, and "
        "a mapping itself cannot be given to it");
    std::vector<LeaseRequest> requests;
    (detail::collect_request(requests, args), ...);
    std::string name = options.name.empty() ? detail::readable_name(typeid(Kernel).name()) : options.name;
    auto closure = std::make_unique<typename Compiler::template KernelClosure<Kernel, Args...>>(
        std::move(kernel), name, args...);
    return submit(options.device, name, &grid, std::move(closure), std::move(requests));
  }
  template <class Kernel, class... Args>
  requires(!std::is_same_v<Kernel, LaunchOptions>) Completion
      launch(const Grid& grid, Kernel kernel, const Args&... args) {
    return launch(grid, LaunchOptions{}, std::move(kernel), args...);
  }

  /// Runs `task(args...)` once on a thread of the device, in order with launches: for library algorithms
  /// (sort, reduce) over leased memory. That thread takes none of the program's signals, nor do those that
  /// the task starts. Its leases are resident and pinned while it runs on every kind of
  /// device, and must fit its memory together. On CUDA it runs what APRIME_CUDA_TASK named for it. \throws as
  /// `launch`
  template <class Task, class... Args, class Compiler = detail::ThisCompiler>
  Completion launch_task(const LaunchOptions& options, Task task, const Args&... args) {
    static_assert((!detail::is_on_demand<Args> && ...), "only a kernel can fault: lease what a task needs");
    static_assert(
        Compiler::template can_call<Task, detail::Bound<Args>...>,
        "the task cannot be called with what it is launched with: read(m) becomes "
        "LeasedSpan<const T>, read_write(m) LeasedSpan<T>, and a mapping itself cannot be given to it");
    std::vector<LeaseRequest> requests;
    (detail::collect_request(requests, args), ...);
    std::string name = options.name.empty() ? detail::readable_name(typeid(Task).name()) : options.name;
    auto closure = std::make_unique<typename Compiler::template TaskClosure<Task, Args...>>(std::move(task),
                                                                                            name, args...);
    return submit(options.device, name, nullptr, std::move(closure), std::move(requests));
  }

  /// Shows the tree below the directory `source` on the directory `mountpoint`, outside it, served by threads
  /// of this process. Programs use its files as those of any file system; what they write is in the source
  /// when their call returns, by `mmap` after msync or munmap. \throws Error(cannot_open) what is wrong with
  /// a path or with the system, and what to do;
  ///         Error(resources) no threads, or a library that was built without libfuse (see `can_mount`)
  Mount mount(const std::string& source, const std::string& mountpoint, const MountOptions& options = {});

  std::vector<DeviceInfo> devices() const;
  Stats stats() const;
  Stats stats(unsigned device) const;

  /// Waits for launches, and copies everything dirty home. All stays usable; for what is stored afterwards,
  /// call again. \throws Error if bytes could not be copied home (they are lost when the runtime goes: free
  /// space and call again)
  void close();

 private:
  Completion submit(unsigned device, const std::string& name, const Grid* grid,
                    std::unique_ptr<detail::LaunchClosure> closure, std::vector<LeaseRequest> requests);
  engine::RuntimeState& used() const;

  std::shared_ptr<engine::RuntimeState> state_;
};

}  // namespace aprime
