// The CUDA device beyond the contract: refusals, and what happens when a call to CUDA fails. Over a stand-in
// for the CUDA runtime.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <future>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/contract/contract.hpp"
#include "tests/contract/demand_kernels.hpp"
#include "tests/cuda/fake_kernels.hpp"
#include "tests/cuda/fake_runtime.hpp"

namespace aprime::contract {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

constexpr Personality kDeviceMemory{"cuda", DeviceKind::cuda, false, false, DeviceMemoryKind::device};
constexpr Personality kManagedMemory{"cuda", DeviceKind::cuda, false, false, DeviceMemoryKind::managed};

class CudaDevice : public testing::Test {
 protected:
  ~CudaDevice() override {
    fake_cuda::repair();
    fake_cuda::set_machine({});
  }
};

Error refusal(const DeviceOptions& options) {
  return error_of(
      [&] { Runtime runtime(RuntimeOptions{.devices = {options}, .granule = ByteCount{kGranule}}); });
}

TEST_F(CudaDevice, is_the_automatic_choice_where_there_is_a_gpu) {
  const Runtime runtime;
  EXPECT_EQ(runtime.devices().front().name, "cuda");
  EXPECT_EQ(runtime.devices().front().chosen_because, "it is the best there is");
}

TEST_F(CudaDevice, without_a_driver_the_emulated_device_is_chosen_and_says_why) {
  fake_cuda::set_machine({.driver = 0});
  const Runtime runtime;
  EXPECT_EQ(runtime.devices().front().name, "emulated");
  EXPECT_THAT(runtime.devices().front().chosen_because, HasSubstr("no NVIDIA driver"));
  EXPECT_THAT(refusal({.kind = DeviceKind::cuda}).what(), HasSubstr("no NVIDIA driver"));
}

TEST_F(CudaDevice, an_old_driver_and_a_hidden_gpu_are_told_apart) {
  fake_cuda::set_machine({.driver = 11000});
  EXPECT_THAT(refusal({.kind = DeviceKind::cuda}).what(), HasSubstr("supports CUDA 11.0"));
  fake_cuda::set_machine({.gpus = 0});
  EXPECT_THAT(refusal({.kind = DeviceKind::cuda}).what(), HasSubstr("CUDA_VISIBLE_DEVICES"));
}

/// These tests are built as for the architectures 70-real and 90.
TEST_F(CudaDevice, a_gpu_that_there_is_no_code_for_is_not_chosen_and_says_why) {
  for (const int capability : {61, 80, 89}) {
    fake_cuda::set_machine({.compute_capability = capability});
    const Runtime runtime;
    EXPECT_EQ(runtime.devices().front().name, "emulated") << capability;
    for (const std::string& text : {runtime.devices().front().chosen_because,
                                    std::string(refusal({.kind = DeviceKind::cuda}).what())}) {
      EXPECT_THAT(text, HasSubstr("GPU 0 is sm_" + std::to_string(capability)));
      EXPECT_THAT(text, HasSubstr("70-real,90"));
    }
  }
  for (const int capability : {70, 75, 90, 120}) {
    fake_cuda::set_machine({.compute_capability = capability});
    EXPECT_EQ(Runtime().devices().front().name, "cuda") << capability;
  }
}

TEST_F(CudaDevice, more_memory_than_the_gpu_has_free_is_refused) {
  fake_cuda::set_machine({.memory = 64 << 20});
  const std::size_t before = fake_cuda::live_resources();
  for (const DeviceMemoryKind kind : {DeviceMemoryKind::device, DeviceMemoryKind::managed}) {
    const Error error = refusal({.kind = DeviceKind::cuda, .memory = 65_MiB, .memory_kind = kind});
    EXPECT_EQ(error.code(), Errc::device_memory);
    EXPECT_THAT(error.what(), HasSubstr(std::to_string(65 << 20)));
    EXPECT_THAT(error.what(), HasSubstr(std::to_string(64 << 20)));
    EXPECT_THAT(error.what(), HasSubstr("--device-memory"));
  }
  EXPECT_EQ(fake_cuda::live_resources(), before);
}

TEST_F(CudaDevice, managed_memory_that_the_cpu_cannot_share_is_refused) {
  fake_cuda::set_machine({.concurrent_managed_access = false});
  const Error error = refusal({.kind = DeviceKind::cuda, .memory_kind = DeviceMemoryKind::managed});
  EXPECT_EQ(error.code(), Errc::invalid_argument);
  EXPECT_THAT(error.what(), HasSubstr("--device-memory-kind device"));
}

TEST_F(CudaDevice, gives_everything_back) {
  const std::size_t before = fake_cuda::live_resources();
  for (const Personality& p : {kDeviceMemory, kManagedMemory}) {
    World world(p);
    const Mapping m = world.map_new(pattern(3 * kGranule));
    world.increment_on_device(m, all_of(m));
    EXPECT_GT(fake_cuda::live_resources(), before);
  }
  EXPECT_EQ(fake_cuda::live_resources(), before);
}

TEST_F(CudaDevice, large_ranges_go_through_staging_in_pieces) {
  World world(kDeviceMemory, {.device_memory = 24_MiB});
  // Not a whole number of pieces, and more pieces than all threads have slots.
  const Bytes bytes = pattern((20 << 20) + 12345);
  const std::string path = world.file(bytes);
  const Mapping m = world.map(path);
  world.increment_on_device(m, all_of(m));
  m.sync();
  EXPECT_EQ(plain_read(path), incremented(bytes));
  EXPECT_EQ(world.seen_by_device(m, granules(1270)), part(incremented(bytes), 1270 * kGranule, kGranule));
}

struct Nothing {
  void operator()(LeasedSpan<const Byte>) const {}
};
FAKE_CUDA_KERNEL(Nothing, LeasedBytes<Right::read>)

/// Copies that wait until there are more of them than 2 MiB: an engine that asks for no more at once, and
/// waits for that, gets nowhere.
TEST_F(CudaDevice, the_copy_threads_have_enough_to_do_at_once) {
  constexpr std::size_t kSize = 24 << 20;
  for (const ByteCount granule : {64_KiB, 2_MiB}) {
    World world(kDeviceMemory, {.granule = granule, .device_memory = 64_MiB});
    const Bytes bytes = pattern(kSize);
    const std::string path = world.file(bytes);
    const Mapping m = world.map(path);
    const auto expect_gathered = [&](const char* doing, const auto& work) {
      fake_cuda::gather_copies(2 << 20);
      work();
      EXPECT_TRUE(fake_cuda::has_gathered()) << doing << " in granules of " << granule.value;
      fake_cuda::gather_copies(0);
    };
    expect_gathered("a lease", [&] {
      world.runtime().launch({{1}, {1}}, Nothing{}, aprime::read(m)).wait();
    });
    const Mapping other = world.map_new(bytes);
    expect_gathered("a prefetch", [&] { other.prefetch(all_of(other), 0); });
    world.increment_on_device(m, all_of(m));
    expect_gathered("the way home", [&] { m.prefetch_home(all_of(m)); });
    world.increment_on_device(m, all_of(m));
    expect_gathered("a sync", [&] { m.sync(); });
    EXPECT_EQ(plain_read(path), incremented(incremented(bytes)));
  }
}

/// Such a lease is filled by two threads (CoherentFile::pin_by_turns).
TEST_F(CudaDevice, a_lease_of_more_than_is_copied_at_once_has_every_byte_in_its_place) {
  constexpr std::uint64_t kSize = 300 << 20;
  constexpr std::uint64_t kPart = 128 << 20;
  constexpr std::uint64_t kLarge = 64 << 10;
  World world(kDeviceMemory, {.granule = ByteCount{kLarge}, .device_memory = 320_MiB});
  const std::string path = world.sparse_file(kSize);
  const std::vector<std::uint64_t> places{0, kPart - 1, kPart, 2 * kPart - 1, 2 * kPart, kSize - 1};
  for (const std::uint64_t at : places)
    plain_write(path, at, constant(1, static_cast<unsigned>(at / kPart + 1)));
  const Mapping m = world.map(path);
  const Delta delta(world);
  world.runtime().launch({{1}, {1}}, Nothing{}, aprime::read(m)).wait();
  EXPECT_EQ(delta.get().granules_filled, kSize / kLarge);
  for (const std::uint64_t at : places) {
    const auto value = static_cast<unsigned>(at / kPart + 1);
    EXPECT_EQ(world.seen_by_device(m, granules(at / kLarge, 1, kLarge)),
              with(Bytes(kLarge), at % kLarge, 1, value))
        << at;
  }
}

TEST_F(CudaDevice, leaves_the_callers_current_gpu_alone) {
  fake_cuda::set_machine({.gpus = 2});
  ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
  {
    World world(kDeviceMemory);
    const Mapping m = world.map_new(pattern(20 * kGranule));
    world.increment_on_device(m, all_of(m));
    world.runtime()
        .launch({{1}, {64}}, CopyElements{}, demand_read(m), demand_read_write(m), std::size_t{1})
        .wait();
    m.sync();
  }
  int current = 0;
  ASSERT_EQ(cudaGetDevice(&current), cudaSuccess);
  EXPECT_EQ(current, 1);
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
}

/// A call that fails while a device is made is told with its name, and leaves nothing behind.
TEST_F(CudaDevice, each_call_of_its_making_may_fail) {
  const std::size_t before = fake_cuda::live_resources();
  for (const char* call : {"cudaGetDeviceProperties", "cudaGetDevice", "cudaStreamCreateWithPriority",
                           "cudaEventCreateWithFlags", "cudaDeviceGetStreamPriorityRange", "cudaHostAlloc",
                           "cudaMemGetInfo", "cudaDeviceGetAttribute", "cudaMallocManaged", "cudaMemAdvise",
                           "cudaMemPrefetchAsync", "cudaStreamSynchronize"}) {
    for (unsigned nth = 0; nth < 20; ++nth) {
      fake_cuda::fail_call(call, nth, cudaErrorUnknown);
      std::string message;
      try {
        const Runtime runtime(RuntimeOptions{
            .devices = {
                {.kind = DeviceKind::cuda, .memory = 4_MiB, .memory_kind = DeviceMemoryKind::managed}}});
      } catch (const Error& error) {
        message = error.what();
        // As long as it is not known to be there.
        const bool is_there = message.find("no CUDA device") == std::string::npos;
        EXPECT_EQ(error.code(), is_there ? Errc::device_failed : Errc::resources) << message;
      }
      if (!fake_cuda::has_failed()) {
        EXPECT_GT(nth, 0u) << call << " is not called";
        break;
      }
      EXPECT_THAT(message, HasSubstr(call)) << nth;
      EXPECT_EQ(fake_cuda::live_resources(), before) << call << " " << nth;
    }
    fake_cuda::repair();
  }
}

/// A copy that fails is tried again granule by granule, as any failed run; one failure alone is no harm.
TEST_F(CudaDevice, a_copy_that_fails_once_loses_nothing) {
  for (const char* call : {"cudaMemcpyAsync", "cudaEventRecord", "cudaEventSynchronize"}) {
    for (unsigned nth = 0; nth < 12; ++nth) {
      World world(kDeviceMemory);
      const Bytes bytes = pattern(20 * kGranule + 77);
      const std::string path = world.file(bytes);
      const Mapping m = world.map(path);
      fake_cuda::fail_call(call, nth, cudaErrorUnknown);
      // The launch may be what fails; then nothing has changed.
      const bool ran =
          world.runtime().launch({{2}, {64}}, IncrementBytes{}, aprime::read_write(m)).status().is_ok();
      // The first sync may fail; the bytes are kept, and the next one succeeds.
      try {
        m.sync();
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Errc::device_failed) << error.what();
        EXPECT_NO_THROW(m.sync());
      }
      fake_cuda::repair();
      const bool may_have_run = ran || std::string(call).starts_with("cudaEvent");
      const Bytes now = plain_read(path);
      if (ran) {
        EXPECT_EQ(now, incremented(bytes)) << call << " " << nth;
      } else {
        EXPECT_TRUE(now == bytes || (may_have_run && now == incremented(bytes))) << call << " " << nth;
      }
    }
  }
}

struct StopHere {
  void operator()(LeasedSpan<Byte>) const { throw std::runtime_error("a kernel's end"); }
};
FAKE_CUDA_KERNEL(StopHere, LeasedBytes<Right::read_write>)

TEST_F(CudaDevice, a_failed_kernel_is_named_and_so_is_what_is_lost) {
  const std::string path =
      std::string(testing::TempDir()) + "aprime-cuda-failed-" + std::to_string(::getpid());
  { const std::ofstream file(path); }
  plain_truncate(path, 4 * kGranule);
  Runtime runtime(RuntimeOptions{.devices = {{.kind = DeviceKind::cuda, .memory = 4_MiB}},
                                 .granule = ByteCount{kGranule},
                                 .dirty_age_max = std::chrono::milliseconds{0}});
  Mapping m = runtime.map(path, Access::read_write);
  runtime.launch({{1}, {1}}, StoreEverywhere{}, aprime::read_write(m, granules(0)), Byte{7}).wait();
  const DeviceFaultStatus status =
      runtime
          .launch({{1}, {1}}, {.device = 0, .name = "stray"}, StopHere{}, aprime::read_write(m, granules(1)))
          .status();
  EXPECT_EQ(status.code, Errc::device_failed);
  EXPECT_THAT(status.message, HasSubstr("kernel stray"));
  EXPECT_THAT(status.message, ContainsRegex("cudaEvent(Record|Synchronize): an illegal memory access"));
  const Error lost = error_of([&] { m.sync(); });
  EXPECT_EQ(lost.code(), Errc::device_failed);
  EXPECT_THAT(lost.what(), HasSubstr(path));
  EXPECT_THAT(lost.what(), HasSubstr("illegal memory access"));
  EXPECT_GT(runtime.stats().dirty_bytes, 0u) << "nothing is dropped in silence";
  fake_cuda::repair();
  EXPECT_NO_THROW(m.sync());
  std::remove(path.c_str());
}

/// Two files that kernels have faulted on; one is unmapped while a kernel runs that waits for what the same
/// thread does next.
TEST_F(CudaDevice, unmapping_waits_for_no_kernel) {
  World world(kDeviceMemory);
  const Mapping m = world.map_new(Bytes(kGranule));
  std::optional<Mapping> other = world.map_new(Bytes(kGranule));
  world.runtime().launch({{1}, {1}}, StoreInto{}, demand_read_write(*other), std::size_t{0}, 7U).wait();
  const Completion done = world.runtime().launch({{1}, {1}}, WaitForHost{}, demand_read_write(m), 5U, 6U);
  // The kernel runs once its table entry is there.
  while (report(m, 0).devices == 0) std::this_thread::yield();
  std::future<void> unmapped = std::async(std::launch::async, [&] { other.reset(); });
  EXPECT_EQ(unmapped.wait_for(std::chrono::seconds{10}), std::future_status::ready);
  m.host<unsigned>()[0] = 5;
  done.wait();
  EXPECT_EQ(m.host<const unsigned>()[1], 6U);
}

TEST_F(CudaDevice, page_tables_of_files_that_are_gone_are_used_again) {
  World world(kDeviceMemory);
  std::size_t made = 0;
  for (int round = 0; round < 3; ++round) {
    const Mapping m = world.map_new(Bytes(kGranule));
    world.runtime().launch({{1}, {1}}, StoreInto{}, demand_read_write(m), std::size_t{0}, 7U).wait();
    if (round == 0) made = fake_cuda::calls("cudaMalloc");
  }
  EXPECT_EQ(fake_cuda::calls("cudaMalloc"), made);
}

/// Threads that wait for a fault then execute what the host asks for, evictions too.
TEST_F(CudaDevice, faults_are_served_where_the_pager_has_no_room) {
  fake_cuda::set_machine({.has_room_for_pager = false});
  World world(kDeviceMemory, {.device_memory = ByteCount{16 * kGranule}});
  const std::size_t words = 40 * kGranule / sizeof(unsigned);
  const Mapping m = world.map_new(Bytes(40 * kGranule));
  for (int round = 0; round < 2; ++round)
    world.runtime().launch({{2}, {64}}, IncrementElements{}, demand_read_write(m)).wait();
  const std::span<const unsigned> seen = m.host<const unsigned>();
  for (std::size_t i = 0; i < words; ++i) ASSERT_EQ(seen[i], 2U) << i;
}

struct QueueAndThrow {
  void operator()(LeasedSpan<Byte>) const {}
};
std::atomic<bool> queued_work_runs{false};

TEST_F(CudaDevice, a_task_that_fails_halfway_has_ended_when_its_leases_go_back) {
  detail::cuda_task<QueueAndThrow, LeasedBytes<Right::read_write>> = [](const void*, void* stream) {
    queued_work_runs = true;
    fake_cuda::queue(static_cast<cudaStream_t>(stream), [] {
      std::this_thread::sleep_for(std::chrono::milliseconds{100});
      queued_work_runs = false;
      return true;
    });
    throw std::runtime_error("no memory for the other half");
  };
  World world(kDeviceMemory);
  const Mapping m = world.map_new(pattern(kGranule));
  const DeviceFaultStatus status =
      world.runtime().launch_task({}, QueueAndThrow{}, aprime::read_write(m)).status();
  EXPECT_FALSE(queued_work_runs);
  EXPECT_EQ(status.code, Errc::kernel_failed);
  EXPECT_THAT(status.message, HasSubstr("the other half"));
}

struct LeaveAnError {
  void operator()(LeasedSpan<Byte>) const {}
};

TEST_F(CudaDevice, an_error_that_a_task_does_not_look_at_is_its_own_and_not_the_next_ones) {
  detail::cuda_task<LeaveAnError, LeasedBytes<Right::read_write>> = [](const void*, void*) {
    int count = 0;
    fake_cuda::fail_call("cudaGetDeviceCount", 0, cudaErrorInvalidConfiguration);
    static_cast<void>(cudaGetDeviceCount(&count));
  };
  World world(kDeviceMemory);
  const Mapping m = world.map_new(pattern(kGranule));
  const DeviceFaultStatus status =
      world.runtime().launch_task({}, LeaveAnError{}, aprime::read_write(m)).status();
  EXPECT_EQ(status.code, Errc::device_failed);
  EXPECT_THAT(status.message, HasSubstr("task LeaveAnError: a call to CUDA in it"));
  EXPECT_NO_THROW(world.runtime().launch_task({}, ReverseBytes{}, aprime::read_write(m)).wait());
}

}  // namespace
}  // namespace aprime::contract
