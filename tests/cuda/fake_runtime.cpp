#include "tests/cuda/fake_runtime.hpp"

#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "tests/cuda/fake_stream.hpp"

namespace aprime::fake_cuda {
namespace {

enum class Kind : std::uint8_t { gpu, managed, page_locked };

class State {
 public:
  /// What every call does first.
  cudaError_t begin(const char* name) {
    const std::lock_guard lock(mutex_);
    ++calls_[name];
    if (broken_) return last_error = cudaErrorIllegalAddress;
    if (planned_call_ != name || planned_nth_-- != 0) return cudaSuccess;
    planned_call_.clear();
    return last_error = planned_error_;
  }
  /// Of the calling thread; told once.
  static cudaError_t take_last_error() { return std::exchange(last_error, cudaSuccess); }

  void add_stream(std::shared_ptr<Stream> stream) {
    const std::lock_guard lock(mutex_);
    streams_[stream.get()] = std::move(stream);
  }
  void remove_stream(Stream* stream) {
    std::shared_ptr<Stream> last;
    const std::lock_guard lock(mutex_);
    last = std::move(streams_.extract(stream).mapped());
  }
  /// Until nothing runs that was queued before.
  void drain_all() {
    std::vector<std::shared_ptr<Stream>> streams;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [address, stream] : streams_) streams.push_back(stream);
    }
    for (const std::shared_ptr<Stream>& stream : streams) stream->drain();
  }
  /// True once for each name.
  bool is_first_load(const std::string& kernel) {
    const std::lock_guard lock(mutex_);
    return loaded_.insert(kernel).second;
  }

  cudaError_t allocate(void** address, std::size_t size, Kind kind) {
    const std::lock_guard lock(mutex_);
    if (kind != Kind::page_locked && size > machine_.memory - used_) return cudaErrorMemoryAllocation;
    // Of its own, and not a child's: what the driver maps is gone after fork().
    void* const memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return cudaErrorMemoryAllocation;
    ::madvise(memory, size, MADV_DONTFORK);
    // What was in GPU memory before is anybody's guess.
    std::memset(memory, 0xa5, size);
    if (kind != Kind::page_locked) used_ += size;
    allocations_[static_cast<std::byte*>(memory)] = {size, kind};
    *address = memory;
    return cudaSuccess;
  }
  cudaError_t release(void* address, bool page_locked) {
    const std::lock_guard lock(mutex_);
    const auto found = allocations_.find(static_cast<std::byte*>(address));
    if (found == allocations_.end() || (found->second.second == Kind::page_locked) != page_locked)
      return cudaErrorInvalidValue;
    if (!page_locked) used_ -= found->second.first;
    ::munmap(address, found->second.first);
    allocations_.erase(found);
    return cudaSuccess;
  }
  /// Whether [address, address + size) lies in one allocation, of page-locked memory or not.
  bool is_within(const void* address, std::size_t size, bool page_locked) {
    const std::lock_guard lock(mutex_);
    const auto* at = static_cast<const std::byte*>(address);
    auto after = allocations_.upper_bound(const_cast<std::byte*>(at));
    if (after == allocations_.begin()) return false;
    const auto& [begin, what] = *--after;
    return (what.second == Kind::page_locked) == page_locked && at + size <= begin + what.first;
  }

  bool loses_copy(cudaMemcpyKind kind, std::size_t size) {
    const std::lock_guard lock(mutex_);
    if (lost_one_in_ == 0 || kind != lost_kind_ || size < 4096) return false;
    return ++copies_ % lost_one_in_ == 0;
  }

  void gather(std::size_t size) {
    {
      const std::lock_guard lock(mutex_);
      gathered_ = 0;
      to_gather_ = size;
    }
    gathered_all_.notify_all();
  }
  /// A copy has been queued.
  void add_to_gathered(std::size_t size) {
    const std::lock_guard lock(mutex_);
    gathered_ += size;
    if (gathered_ > to_gather_) gathered_all_.notify_all();
  }
  void wait_for_gathered() {
    std::unique_lock lock(mutex_);
    const auto enough = [this] { return to_gather_ == 0 || gathered_ > to_gather_; };
    if (!gathered_all_.wait_for(lock, std::chrono::seconds{20}, enough)) to_gather_ = 0;
  }

  std::mutex mutex_;
  Machine machine_;
  std::map<std::string, std::size_t> calls_;
  std::string planned_call_;
  unsigned planned_nth_ = 0;
  cudaError_t planned_error_ = cudaSuccess;
  std::atomic<bool> broken_{false};
  cudaMemcpyKind lost_kind_ = cudaMemcpyDefault;
  unsigned lost_one_in_ = 0;
  unsigned copies_ = 0;
  std::condition_variable gathered_all_;
  std::size_t to_gather_ = 0;
  std::size_t gathered_ = 0;
  std::map<std::byte*, std::pair<std::size_t, Kind>> allocations_;
  std::size_t used_ = 0;
  std::atomic<std::size_t> objects_{0};
  std::map<Stream*, std::shared_ptr<Stream>> streams_;
  std::set<std::string> loaded_;
  static thread_local cudaError_t last_error;
};
thread_local cudaError_t State::last_error = cudaSuccess;

State& state() {
  static State s;
  return s;
}

Stream& stream_of(cudaStream_t stream) { return *reinterpret_cast<Stream*>(stream); }
/// A stream may still have to reach an event that was destroyed.
using SharedEvent = std::shared_ptr<Event>;
SharedEvent& event_of(cudaEvent_t event) { return *reinterpret_cast<SharedEvent*>(event); }

}  // namespace

Machine machine() {
  const std::lock_guard lock(state().mutex_);
  return state().machine_;
}

void set_machine(const Machine& machine) {
  const std::lock_guard lock(state().mutex_);
  state().machine_ = machine;
}

void fail_call(const std::string& name, unsigned nth, cudaError_t error) {
  const std::lock_guard lock(state().mutex_);
  state().planned_call_ = name;
  state().planned_nth_ = nth;
  state().planned_error_ = error;
}

bool has_failed() {
  const std::lock_guard lock(state().mutex_);
  return state().planned_call_.empty();
}

void repair() {
  const std::lock_guard lock(state().mutex_);
  state().planned_call_.clear();
  state().broken_ = false;
  state().lost_one_in_ = 0;
  state().to_gather_ = 0;
}

void lose_copies(cudaMemcpyKind kind, unsigned one_in) {
  const std::lock_guard lock(state().mutex_);
  state().lost_kind_ = kind;
  state().lost_one_in_ = one_in;
}

void gather_copies(std::size_t size) { state().gather(size); }

bool has_gathered() {
  const std::lock_guard lock(state().mutex_);
  return state().to_gather_ != 0 && state().gathered_ > state().to_gather_;
}

std::size_t calls(const std::string& name) {
  const std::lock_guard lock(state().mutex_);
  return state().calls_[name];
}

std::size_t live_resources() {
  const std::lock_guard lock(state().mutex_);
  return state().allocations_.size() + state().objects_;
}

int priority_of(cudaStream_t stream) { return stream_of(stream).priority(); }

void load(const std::string& kernel) {
  if (state().is_first_load(kernel)) state().drain_all();
}

void queue(cudaStream_t stream, std::function<bool()> work) {
  stream_of(stream).push([work = std::move(work)] {
    if (!work()) state().broken_ = true;
  });
}

}  // namespace aprime::fake_cuda

namespace fake = aprime::fake_cuda;

namespace {
thread_local int current_gpu = 0;
}

// The calls of the CUDA runtime, in the order of its reference.
extern "C" {

#define FAKE_CUDA_BEGIN(name) \
  if (const cudaError_t error = fake::state().begin(#name); error != cudaSuccess) return error

cudaError_t cudaGetDeviceCount(int* count) {
  FAKE_CUDA_BEGIN(cudaGetDeviceCount);
  const fake::Machine& machine = fake::state().machine_;
  if (machine.driver != 0 && machine.driver >= CUDART_VERSION && machine.gpus > 0) {
    *count = machine.gpus;
    return cudaSuccess;
  }
  *count = -1;
  return machine.driver < CUDART_VERSION ? cudaErrorInsufficientDriver : cudaErrorNoDevice;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  FAKE_CUDA_BEGIN(cudaGetDeviceProperties);
  *properties = {};
  std::strcpy(properties->name, "stand-in");
  properties->major = fake::state().machine_.compute_capability / 10;
  properties->minor = fake::state().machine_.compute_capability % 10;
  properties->multiProcessorCount = 2;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  FAKE_CUDA_BEGIN(cudaDeviceGetAttribute);
  const fake::Machine& machine = fake::state().machine_;
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = machine.compute_capability / 10; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = machine.compute_capability % 10; return cudaSuccess;
    case cudaDevAttrConcurrentManagedAccess:
      *value = machine.concurrent_managed_access ? 1 : 0;
      return cudaSuccess;
    default: return cudaErrorInvalidValue;
  }
}

cudaError_t cudaGetDevice(int* device) {
  FAKE_CUDA_BEGIN(cudaGetDevice);
  *device = current_gpu;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  FAKE_CUDA_BEGIN(cudaSetDevice);
  if (device < 0 || device >= fake::state().machine_.gpus) return cudaErrorInvalidDevice;
  current_gpu = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  FAKE_CUDA_BEGIN(cudaDeviceGetStreamPriorityRange);
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = fake::kGreatestPriority;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return fake::State::take_last_error(); }
const char* cudaGetErrorName(cudaError_t) { return "name"; }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorIllegalAddress ? "an illegal memory access was encountered" : "planned";
}

cudaError_t cudaDriverGetVersion(int* version) {
  FAKE_CUDA_BEGIN(cudaDriverGetVersion);
  *version = fake::state().machine_.driver;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  FAKE_CUDA_BEGIN(cudaStreamCreateWithPriority);
  if (flags != cudaStreamNonBlocking) return cudaErrorInvalidValue;
  auto made = std::make_shared<fake::Stream>(priority);
  *stream = reinterpret_cast<cudaStream_t>(made.get());
  fake::state().add_stream(std::move(made));
  ++fake::state().objects_;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  fake::state().remove_stream(&fake::stream_of(stream));
  --fake::state().objects_;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  fake::stream_of(stream).drain();
  FAKE_CUDA_BEGIN(cudaStreamSynchronize);
  return fake::state().broken_ ? cudaErrorIllegalAddress : cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  FAKE_CUDA_BEGIN(cudaEventCreateWithFlags);
  if (flags != cudaEventDisableTiming) return cudaErrorInvalidValue;
  *event = reinterpret_cast<cudaEvent_t>(new fake::SharedEvent(std::make_shared<fake::Event>()));
  ++fake::state().objects_;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete &fake::event_of(event);
  --fake::state().objects_;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  FAKE_CUDA_BEGIN(cudaEventRecord);
  const fake::SharedEvent e = fake::event_of(event);
  fake::stream_of(stream).push([e, place = e->record()] { e->reach(place); });
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  // Also if it is to fail: what went wrong is told late.
  fake::event_of(event)->wait();
  FAKE_CUDA_BEGIN(cudaEventSynchronize);
  return fake::state().broken_ ? cudaErrorIllegalAddress : cudaSuccess;
}

cudaError_t cudaHostAlloc(void** address, std::size_t size, unsigned) {
  FAKE_CUDA_BEGIN(cudaHostAlloc);
  return fake::state().allocate(address, size, fake::Kind::page_locked);
}

cudaError_t cudaFreeHost(void* address) { return fake::state().release(address, true); }

cudaError_t cudaMalloc(void** address, std::size_t size) {
  FAKE_CUDA_BEGIN(cudaMalloc);
  return fake::state().allocate(address, size, fake::Kind::gpu);
}

cudaError_t cudaMallocManaged(void** address, std::size_t size, unsigned flags) {
  FAKE_CUDA_BEGIN(cudaMallocManaged);
  if (flags != cudaMemAttachGlobal) return cudaErrorInvalidValue;
  return fake::state().allocate(address, size, fake::Kind::managed);
}

cudaError_t cudaFree(void* address) {
  fake::state().drain_all();
  return fake::state().release(address, false);
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  FAKE_CUDA_BEGIN(cudaMemGetInfo);
  const std::lock_guard lock(fake::state().mutex_);
  *total = fake::state().machine_.memory;
  *free = *total - fake::state().used_;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  FAKE_CUDA_BEGIN(cudaMemcpyAsync);
  const bool to_host = kind == cudaMemcpyDeviceToHost;
  const bool from_host = kind == cudaMemcpyHostToDevice;
  if (!fake::state().is_within(to, size, to_host) || !fake::state().is_within(from, size, from_host))
    return cudaErrorInvalidValue;
  if (fake::state().loses_copy(kind, size)) return cudaSuccess;
  fake::state().add_to_gathered(size);
  fake::stream_of(stream).push([=] {
    fake::state().wait_for_gathered();
    std::memcpy(to, from, size);
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* address, int value, std::size_t size, cudaStream_t stream) {
  FAKE_CUDA_BEGIN(cudaMemsetAsync);
  if (!fake::state().is_within(address, size, false)) return cudaErrorInvalidValue;
  fake::stream_of(stream).push([=] { std::memset(address, value, size); });
  return cudaSuccess;
}

#if CUDART_VERSION >= 13000
cudaError_t cudaMemAdvise(const void* address, std::size_t size, cudaMemoryAdvise, cudaMemLocation) {
#else
cudaError_t cudaMemAdvise(const void* address, std::size_t size, cudaMemoryAdvise, int) {
#endif
  FAKE_CUDA_BEGIN(cudaMemAdvise);
  return fake::state().is_within(address, size, false) ? cudaSuccess : cudaErrorInvalidValue;
}

#if CUDART_VERSION >= 13000
cudaError_t cudaMemPrefetchAsync(const void* address, std::size_t size, cudaMemLocation, unsigned,
                                 cudaStream_t) {
#else
cudaError_t cudaMemPrefetchAsync(const void* address, std::size_t size, int, cudaStream_t) {
#endif
  FAKE_CUDA_BEGIN(cudaMemPrefetchAsync);
  return fake::state().is_within(address, size, false) ? cudaSuccess : cudaErrorInvalidValue;
}

}  // extern "C"
