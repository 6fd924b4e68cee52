// Plain CUDA, nothing of aprime: what the figures of a GPU are compared with; and the benchmarks' kernels for
// the GPU.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cub/device/device_histogram.cuh>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>

#include "aprime/cuda.hpp"
#include "bench/device_kernels.hpp"
#include "bench/reference.hpp"

namespace aprime::bench {
namespace {

/// The benchmarks' own clock is in a header that nvcc has no use for.
double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void require(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(error));
}
void require(bool ok, const std::string& what) {
  if (!ok) throw std::runtime_error(what);
}

using Gpu = std::unique_ptr<void, decltype(&cudaFree)>;
using PageLocked = std::unique_ptr<void, decltype(&cudaFreeHost)>;

Gpu gpu_memory(std::size_t size) {
  void* data = nullptr;
  require(cudaMalloc(&data, size), "cudaMalloc");
  return {data, &cudaFree};
}
Gpu managed_memory(std::size_t size) {
  std::size_t free = 0;
  std::size_t total = 0;
  require(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  require(size <= free, "the GPU has less memory free than the file is long");
  void* data = nullptr;
  require(cudaMallocManaged(&data, size), "cudaMallocManaged");
  return {data, &cudaFree};
}
PageLocked page_locked(std::size_t size) {
  void* data = nullptr;
  require(cudaHostAlloc(&data, size, cudaHostAllocDefault), "cudaHostAlloc");
  return {data, &cudaFreeHost};
}

template <class Kernel, class T>
__global__ void run_raw(const Kernel kernel, const T* data, Sums sums) {
  kernel(data, sums);
}

class CudaReference final : public Reference {
 public:
  explicit CudaReference(std::size_t size)
      : size_(size), host_(page_locked(size)), device_(gpu_memory(size)), sums_(gpu_memory(kSumsBytes)) {
    require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    require(cudaMemset(device_.get(), 1, size), "cudaMemset");
    require(cudaMemset(sums_.get(), 0, kSumsBytes), "cudaMemset");
    require(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  ~CudaReference() override { static_cast<void>(cudaStreamDestroy(stream_)); }

  double copy_in() override { return copy(device_.get(), host_.get(), cudaMemcpyHostToDevice); }
  double copy_out() override { return copy(host_.get(), device_.get(), cudaMemcpyDeviceToHost); }
  double run(const Grid& grid, const RawStream& kernel) override { return time<Quad>(grid, kernel); }
  double run(const Grid& grid, const RawLoadEach<std::uint32_t>& kernel) override {
    return time<std::uint32_t>(grid, kernel);
  }
  double run(const Grid& grid, const RawLoadEach<Quad>& kernel) override { return time<Quad>(grid, kernel); }

 private:
  static constexpr std::size_t kSums = 256;
  static constexpr std::size_t kSumsBytes = kSums * sizeof(unsigned long long);

  double copy(void* to, const void* from, cudaMemcpyKind kind) {
    const double start = seconds_now();
    require(cudaMemcpyAsync(to, from, size_, kind, stream_), "cudaMemcpyAsync");
    require(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    return seconds_now() - start;
  }
  template <class T, class Kernel>
  double time(const Grid& grid, const Kernel& kernel) {
    const double start = seconds_now();
    run_raw<<<grid.blocks.x, grid.threads.x, 0, stream_>>>(
        kernel, static_cast<const T*>(device_.get()),
        Sums{static_cast<unsigned long long*>(sums_.get()), kSums});
    require(cudaGetLastError(), "a kernel's start");
    require(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    return seconds_now() - start;
  }

  std::size_t size_;
  PageLocked host_;
  Gpu device_;
  Gpu sums_;
  cudaStream_t stream_ = nullptr;
};

/// A file that is open for reading.
class OpenFile {
 public:
  explicit OpenFile(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat s {};
    require(fd_ >= 0 && ::fstat(fd_, &s) == 0, "cannot open " + path);
    size_ = static_cast<std::size_t>(s.st_size);
  }
  ~OpenFile() { ::close(fd_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int fd() const { return fd_; }
  std::size_t size() const { return size_; }

 private:
  int fd_;
  std::size_t size_ = 0;
};

class MappedFile {
 public:
  explicit MappedFile(const OpenFile& file)
      : data_(::mmap(nullptr, file.size(), PROT_READ, MAP_SHARED, file.fd(), 0)), size_(file.size()) {
    require(data_ != MAP_FAILED, "mmap");
  }
  ~MappedFile() { ::munmap(data_, size_); }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const void* data() const { return data_; }

 private:
  void* data_;
  std::size_t size_;
};

void count_on_gpu(const void* bytes, std::size_t size, Bins& bins) {
  const Gpu counts = gpu_memory(sizeof bins);
  auto* const counted = static_cast<unsigned long long*>(counts.get());
  const auto count = [&](void* work, std::size_t& work_bytes) {
    constexpr int kBins = 256;
    return cub::DeviceHistogram::HistogramEven(work, work_bytes, static_cast<const unsigned char*>(bytes),
                                               counted, kBins + 1, 0, kBins,
                                               static_cast<std::ptrdiff_t>(size));
  };
  std::size_t work_bytes = 0;
  require(count(nullptr, work_bytes), "HistogramEven");
  const Gpu work = gpu_memory(work_bytes);
  require(count(work.get(), work_bytes), "HistogramEven");
  require(cudaMemcpy(bins.data(), counted, sizeof bins, cudaMemcpyDeviceToHost), "cudaMemcpy");
}

void count_copied(const void* bytes, std::size_t size, Bins& bins) {
  const Gpu copy = gpu_memory(size);
  require(cudaMemcpy(copy.get(), bytes, size, cudaMemcpyHostToDevice), "cudaMemcpy");
  count_on_gpu(copy.get(), size, bins);
}

void count_read(const std::string& path, Bins& bins) {
  const OpenFile file(path);
  const std::unique_ptr<void, decltype(&std::free)> bytes(std::malloc(file.size()), &std::free);
  require(bytes != nullptr, "no memory for the file");
  for (std::size_t at = 0; at < file.size();) {
    const ssize_t n = ::read(file.fd(), static_cast<char*>(bytes.get()) + at, file.size() - at);
    require(n > 0, "cannot read " + path);
    at += static_cast<std::size_t>(n);
  }
  count_copied(bytes.get(), file.size(), bins);
}

void count_managed(const std::string& path, Bins& bins) {
  const std::size_t size = OpenFile(path).size();
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
  const Gpu bytes = managed_memory(size);
  require(file != nullptr && std::fread(bytes.get(), 1, size, file.get()) == size, "cannot read " + path);
  count_on_gpu(bytes.get(), size, bins);
}

}  // namespace

std::unique_ptr<Reference> cuda_reference(ByteCount size) {
  return std::make_unique<CudaReference>(size.value);
}

void require_room_for_pager() {
  constexpr int kRegistersMost = 56;  // see kernels/cuda/pager.cu
  const auto* const kernel = reinterpret_cast<const void*>(
      &detail::run_on_cuda<PinnedStream, DemandBytes<Right::read>, LeasedBytes<Right::read_write>>);
  cudaFuncAttributes attributes{};
  require(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
  require(attributes.numRegs <= kRegistersMost, "PinnedStream has " + std::to_string(attributes.numRegs) +
                                                    " registers a thread, and beside more than " +
                                                    std::to_string(kRegistersMost) +
                                                    " the pager has no room");
}

bool can_use_mappings() {
  int can = 0;
  require(cudaDeviceGetAttribute(&can, cudaDevAttrPageableMemoryAccess, 0), "cudaDeviceGetAttribute");
  return can != 0;
}

double count_bytes(FilePath how, const std::string& path, Bins& bins) {
  const double start = seconds_now();
  switch (how) {
    case FilePath::read_and_copy: count_read(path, bins); break;
    case FilePath::fread_managed: count_managed(path, bins); break;
    case FilePath::mmap_and_copy: {
      const OpenFile file(path);
      count_copied(MappedFile(file).data(), file.size(), bins);
      break;
    }
    case FilePath::mapping_directly: {
      const OpenFile file(path);
      count_on_gpu(MappedFile(file).data(), file.size(), bins);
      break;
    }
  }
  return seconds_now() - start;
}

using Read = LeasedBytes<Right::read>;
using ReadWrite = LeasedBytes<Right::read_write>;
using Write = LeasedBytes<Right::write>;
using DemandRead = DemandBytes<Right::read>;

APRIME_CUDA_KERNEL(DoNothing, Read)
APRIME_CUDA_KERNEL(LoadEach<Quad>, DemandRead, ReadWrite)
APRIME_CUDA_KERNEL(LoadEach<std::uint32_t>, DemandRead, ReadWrite)
APRIME_CUDA_KERNEL(PinnedStream, DemandRead, ReadWrite)
APRIME_CUDA_KERNEL(StoreEach, Write)
APRIME_CUDA_KERNEL(TimeFaults, DemandRead, Write)

}  // namespace aprime::bench
