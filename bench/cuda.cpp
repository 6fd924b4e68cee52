#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/device.hpp"
#include "bench/figure.hpp"
#include "bench/plain.hpp"
#include "bench/reference.hpp"
#include "bench/software_paged.hpp"
#include "kernels/workload.hpp"

// Figures of a GPU, beside what plain CUDA does in the same run.

namespace aprime::bench {
namespace {

using namespace aprime::literals;

constexpr ByteCount kRange = 1_GiB;
constexpr ByteCount kColdFile = 8_GiB;
constexpr ByteCount kStreamedFile = 2_GiB;

/// \throws std::runtime_error where there is no GPU that the runtime can use
void require_gpu() {
  static const std::string reason = [] {
    try {
      const Runtime runtime(RuntimeOptions{.devices = {{.kind = DeviceKind::cuda}}});
      return std::string();
    } catch (const Error& error) {
      return std::string("needs a GPU: ") + error.what();
    }
  }();
  if (!reason.empty()) throw std::runtime_error(reason);
}

/// A lease of the whole range, none of which the GPU holds.
class CudaLeaseFill final : public Experiment {
 public:
  explicit CudaLeaseFill(ByteCount granule) : runtime_(quiet(DeviceKind::cuda, granule, kRange)) {}
  Sample round() override {
    Sample s;
    {
      const Mapping mapping = runtime_.map(file_.path(), Access::read);
      const double start = now();
      runtime_.launch({{1}, {1}}, DoNothing{}, read(mapping)).wait();
      s.measured = now() - start;
    }
    s.floor = reference_->copy_in();
    return s;
  }

 private:
  const PlainFile file_{kRange, true};
  Runtime runtime_;
  const std::unique_ptr<Reference> reference_ = cuda_reference(kRange);
};

/// The whole range, stored to by a kernel, on its way home.
class CudaCopyBack final : public Experiment {
 public:
  explicit CudaCopyBack(ByteCount granule) : runtime_(quiet(DeviceKind::cuda, granule, kRange)) {}
  Sample round() override {
    Sample s;
    const Grid grid{.blocks = {runtime_.devices().front().workers * 4}, .threads = {256}};
    runtime_.launch(grid, StoreEach{++round_}, write(mapping_)).wait();
    const double start = now();
    mapping_.prefetch_home(all_of(mapping_));
    s.measured = now() - start;
    s.floor = reference_->copy_out();
    return s;
  }

 private:
  const PlainFile file_{kRange, true};
  Runtime runtime_;
  const Mapping mapping_ = runtime_.map(file_.path(), Access::read_write);
  const std::unique_ptr<Reference> reference_ = cuda_reference(kRange);
  std::uint32_t round_ = 0;
};

struct NobodyWatches final : kernels::Progress {
  void begin(const std::string&, ByteCount) override {}
  void advance(ByteCount) override {}
};

Bins histogram(Runtime& runtime, const std::string& path, ByteCount granule, ByteCount device_memory) {
  NobodyWatches progress;
  kernels::Session session(runtime, granule, device_memory, progress);
  const kernels::Workload& workload = *kernels::find_workload("histogram");
  const Mapping mapping = runtime.map(path, Access::read);
  const kernels::Result result = workload.run(session, {}, {&mapping, 1});
  const auto& counts = std::get<std::vector<std::uint64_t>>(result.front().second);
  Bins bins{};
  std::copy(counts.begin(), counts.end(), bins.begin());
  return bins;
}

/// From a path to the result, the runtime and its device memory included; in all of them the process has a
/// CUDA context already. The reference is the fastest of the ways that there are without aprime.
class CudaCold final : public Experiment {
 public:
  CudaCold() {
    std::vector<FilePath> ways{FilePath::read_and_copy, FilePath::fread_managed, FilePath::mmap_and_copy};
    if (can_use_mappings()) ways.push_back(FilePath::mapping_directly);
    static_cast<void>(ours());  // brings the file into the page cache, and the libraries' code to the GPU
    double best = std::numeric_limits<double>::infinity();
    for (const FilePath way : ways) {
      const double seconds = plain(way);
      if (seconds < best) fastest_ = way;
      best = std::min(best, seconds);
    }
  }

  Sample round() override { return {ours(), plain(fastest_)}; }

 private:
  double ours() {
    const double start = now();
    {
      Runtime runtime(quiet(DeviceKind::cuda, kGranule, kDeviceMemory));
      bins_ = histogram(runtime, file_.path(), kGranule, kDeviceMemory);
    }
    return now() - start;
  }
  double plain(FilePath way) {
    Bins bins{};
    const double seconds = count_bytes(way, file_.path(), bins);
    if (bins != bins_) throw std::runtime_error("the histograms of aprime and of plain CUDA differ");
    return seconds;
  }

  static constexpr ByteCount kGranule = 2_MiB;
  static constexpr ByteCount kDeviceMemory = 512_MiB;
  const PlainFile file_{kColdFile, true};
  Bins bins_{};
  FilePath fastest_ = FilePath::read_and_copy;
};

/// A file eight times the device memory, and the same file with room for all of it.
class CudaStreaming final : public Experiment {
 public:
  Sample round() override { return {seconds(small_, kSmall), seconds(large_, kLarge)}; }

 private:
  double seconds(Runtime& runtime, ByteCount device_memory) {
    const double start = now();
    const Bins bins = histogram(runtime, file_.path(), kGranule, device_memory);
    const double end = now();
    if (bins_ == Bins{}) bins_ = bins;
    if (bins != bins_) throw std::runtime_error("two histograms of one file differ");
    return end - start;
  }

  static constexpr ByteCount kGranule = 2_MiB;
  static constexpr ByteCount kSmall{kStreamedFile.value / 8};
  /// Workloads lease at most half of it at once.
  static constexpr ByteCount kLarge{2 * kStreamedFile.value + (std::uint64_t{256} << 20)};
  const PlainFile file_{kStreamedFile, true};
  Runtime small_{quiet(DeviceKind::cuda, kGranule, kSmall)};
  Runtime large_{quiet(DeviceKind::cuda, kGranule, kLarge)};
  Bins bins_{};
};

}  // namespace

void add_cuda(Figures& figures) {
  const auto add = [&](const char* key, const char* text, const char* floor, ByteCount bytes, double must,
                       int rounds, auto make) {
    figures.push_back({key, text, floor, Unit::gigabytes_per_second, static_cast<double>(bytes.value),
                       Goal::ratio_at_least, must, rounds, [make]() -> std::unique_ptr<Experiment> {
                         require_gpu();
                         return make();
                       }});
  };
  add("cuda_lease_fill", "lease fill, 1 GiB, warm page cache", "page-locked cudaMemcpyAsync", kRange, 0.9, 7,
      [] { return std::make_unique<CudaLeaseFill>(64_KiB); });
  add("cuda_lease_fill_2m", "lease fill, 1 GiB, warm page cache, 2 MiB granules",
      "page-locked cudaMemcpyAsync", kRange, 0.9, 7, [] { return std::make_unique<CudaLeaseFill>(2_MiB); });
  add("cuda_copy_back", "copy back, 1 GiB", "page-locked cudaMemcpyAsync", kRange, 0.9, 7,
      [] { return std::make_unique<CudaCopyBack>(64_KiB); });
  add("cuda_copy_back_2m", "copy back, 1 GiB, 2 MiB granules", "page-locked cudaMemcpyAsync", kRange, 0.9, 7,
      [] { return std::make_unique<CudaCopyBack>(2_MiB); });
  add("cuda_cold", "cold start to result: histogram, 8 GiB, warm page cache",
      "the best of read + cudaMemcpy, fread into managed memory, mmap + cudaMemcpy, the mapping itself",
      kColdFile, 1.5, 3, [] { return std::make_unique<CudaCold>(); });
  add("cuda_streaming", "histogram, 2 GiB, device memory 1/8 of the file",
      "everything resident, fill included", kStreamedFile, 0.85, 5,
      [] { return std::make_unique<CudaStreaming>(); });
  add_software_paged(figures,
                     {.kind = DeviceKind::cuda,
                      .key = "cuda_",
                      .suffix = "",
                      .copy_text = "page-locked cudaMemcpyAsync",
                      .range = kRange,
                      .passes = 32,
                      .blocks_per_processor = 4,
                      .loading_blocks_per_processor = 5,
                      .threads = 256,
                      .rounds = 5,
                      .is_reported_only = false,
                      .require =
                          [] {
                            require_gpu();
                            require_room_for_pager();
                          },
                      .make_reference = [](ByteCount size, Runtime&) { return cuda_reference(size); }});
}

}  // namespace aprime::bench
