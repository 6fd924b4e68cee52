#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/contract/contract.hpp"

// fork(): the child has no window and no host view; touching them faults cleanly, and the parent notices
// nothing.

namespace aprime::contract {
namespace {

using Fork = Contract;
APRIME_CONTRACT_SUITE(Fork);

/// Ended by a fault, or by what a sanitizer makes of one, and not because it hung.
bool died(int status) { return WIFSIGNALED(status) ? WTERMSIG(status) != SIGALRM : WEXITSTATUS(status) != 0; }
bool ended_well(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

TEST_P(Fork, a_child_that_touches_the_host_view_dies) {
  World world(GetParam());
  const std::string path = world.file(pattern(2 * kGranule));
  const Mapping m = world.map(path);
  auto* const host = reinterpret_cast<volatile Byte*>(m.host<std::byte>().data());
  world.store_on_device(m, granules(1), 5);

  EXPECT_TRUE(died(in_child([&] { ::_exit(host[0] == 0 ? 0 : 0); }))) << "bytes at home";
  EXPECT_TRUE(died(in_child([&] { ::_exit(host[kGranule] == 0 ? 0 : 0); }))) << "bytes on the device";
  EXPECT_TRUE(died(in_child([&] { host[kGranule] = 1; })));

  EXPECT_EQ(report(m, 1).place, Place::device) << "the parent is as it was";
  EXPECT_EQ(host[kGranule], 5);
  EXPECT_EQ(plain_read(path, granules(0)), part(pattern(2 * kGranule), 0, kGranule));
}

TEST_P(Fork, a_child_that_touches_device_memory_dies) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(kGranule));
  const Byte* device_address = nullptr;
  world.runtime().launch_task({}, TellAddress{&device_address}, aprime::read(m)).wait();
  ASSERT_NE(device_address, nullptr);
  EXPECT_TRUE(
      died(in_child([&] { ::_exit(*static_cast<const volatile Byte*>(device_address) == 0 ? 0 : 0); })));
  EXPECT_EQ(world.seen_by_device(m), pattern(kGranule));
}

TEST_P(Fork, a_child_that_ends_its_objects_neither_hangs_nor_writes) {
  World world(GetParam(), {.dirty_age_max = std::chrono::minutes(10)});
  const Bytes before = pattern(2 * kGranule);
  const std::string path = world.file(before);
  Mapping m = world.map(path);
  auto* const host = m.host<std::byte>().data();
  world.store_on_device(m, all_of(m), 5);
  const int status = in_child([&] {
    m = Mapping();
    world.end_runtime();
  });
  EXPECT_TRUE(ended_well(status)) << status;
  EXPECT_EQ(plain_read(path), before) << "home is the parent's to write";
  EXPECT_EQ(report(m, 0).place, Place::device);
  EXPECT_EQ(host[3], std::byte{5});
  world.increment_on_device(m, all_of(m));
  m.close();
  EXPECT_EQ(plain_read(path), constant(2 * kGranule, 6));
}

TEST_P(Fork, a_child_that_ends_a_lease_takes_nothing_from_the_parents) {
  World world(GetParam());
  Mapping m = world.map_new(pattern(2 * kGranule));
  std::optional<HostLease> lease = m.host_lease(granules(0), Right::read_write);
  const int status = in_child([&] {
    m = Mapping();
    lease.reset();
    world.end_runtime();
  });
  EXPECT_TRUE(ended_well(status)) << status;
  const Completion launch = world.runtime().launch({{1}, {1}}, IncrementBytes{}, aprime::read_write(m));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(launch.done());
  lease.reset();
  EXPECT_NO_THROW(launch.wait());
}

TEST_P(Fork, a_child_is_told_that_what_it_inherited_is_its_parents) {
  World world(GetParam());
  const Bytes before = pattern(2 * kGranule);
  const std::string path = world.file(before);
  Mapping m = world.map(path);
  m.host<std::byte>();
  world.increment_on_device(m, all_of(m));
  Runtime& runtime = world.runtime();
  const Completion blocked = [&] {
    const HostLease lease = m.host_lease(granules(1), Right::read_write);
    const Completion launch = runtime.launch({{1}, {1}}, IncrementBytes{}, aprime::read_write(m));
    Byte byte{};
    const std::span<std::byte> one(reinterpret_cast<std::byte*>(&byte), 1);
    std::vector<std::function<void()>> calls{
        [&] { static_cast<void>(runtime.map(path, Access::read)); },
        [&] {
          runtime.launch({{1}, {1}}, IncrementBytes{}, aprime::read_write(m)).wait();
        },
        [&] { runtime.close(); },
        [&] { launch.wait(); },
        [&] { m.host<std::byte>(); },
        [&] { m.read(ByteOffset{0}, one); },
        [&] { m.write(ByteOffset{0}, one); },
        [&] { m.read_direct(ByteOffset{0}, {}); },
        [&] { m.write_direct(ByteOffset{0}, {}); },
        [&] { m.sync(); },
        [&] { m.sync(granules(0)); },
        [&] { m.advise(granules(0), Advice::sequential); },
        [&] { m.prefetch(granules(1), 0); },
        [&] { m.prefetch_home(granules(0)); },
        [&] { static_cast<void>(m.host_lease(granules(0), Right::read)); },
        [&] { static_cast<void>(m.snapshot(granules(0))); },
        [&] { m.discard(granules(0)); },
        [&] { m.resize(ByteCount{kGranule}); },
    };
    if (can_mount()) calls.emplace_back([&] { static_cast<void>(runtime.mount("/", "/")); });
    for (std::size_t i = 0; i < calls.size(); ++i)
      EXPECT_EQ(WEXITSTATUS(in_child([&] {
                  const Error error = error_of(calls[i]);
                  const bool says_why =
                      std::string_view(error.what()).find("fork()") != std::string_view::npos;
                  ::_exit(error.code() == Errc::invalid_argument && says_why ? 42 : 1);
                })),
                42)
          << "call " << i;
    return launch;
  }();
  EXPECT_NO_THROW(blocked.wait());
  m.close();
  EXPECT_EQ(plain_read(path), incremented(incremented(before))) << "the parent is as it was";
}

// ThreadSanitizer starts no threads in a child of a process that has some.
#ifndef __SANITIZE_THREAD__
TEST_P(Fork, a_child_may_make_a_runtime_of_its_own) {
  World world(GetParam());
  const std::string path = world.file(pattern(kGranule));
  const Mapping m = world.map(path);
  world.increment_on_device(m, all_of(m));
  m.sync();
  DeviceOptions device = GetParam().device(4_MiB, 2);
  // CUDA cannot be used in a child of a process that uses it.
  if (device.kind == DeviceKind::cuda) device.kind = DeviceKind::emulated_strict;
  const int status = in_child([&] {
    Runtime own(RuntimeOptions{.devices = {device}});
    Mapping mapped = own.map(path, Access::read_write);
    own.launch({{1}, {1}}, IncrementBytes{}, aprime::read_write(mapped)).wait();
    mapped.close();
  });
  EXPECT_TRUE(ended_well(status)) << status;
  EXPECT_EQ(plain_read(path), incremented(incremented(pattern(kGranule))));
}
#endif

TEST_P(Fork, a_child_may_use_the_plain_path_and_run_a_program) {
  World world(GetParam());
  const std::string path = world.file(pattern(kGranule));
  const Mapping m = world.map(path);
  m.host<std::byte>();
  world.store_on_device(m, all_of(m), 5);
  m.sync();
  EXPECT_TRUE(ended_well(in_child([&] { ::_exit(plain_read(path) == constant(kGranule, 5) ? 0 : 1); })));
  EXPECT_TRUE(ended_well(in_child([] { ::execl("/bin/sh", "sh", "-c", "exit 0", nullptr); })));
}

TEST_P(Fork, a_child_that_faults_keeps_the_programs_own_signal_handler) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(kGranule));
  const auto* const host = reinterpret_cast<const volatile Byte*>(m.host<const std::byte>().data());
  EXPECT_EQ(WEXITSTATUS(in_child([&] {
              struct sigaction own {};
              own.sa_handler = [](int) { ::_exit(42); };
              ::sigaction(SIGSEGV, &own, nullptr);
              ::_exit(host[0] == 0 ? 0 : 1);
            })),
            42);
}

TEST_P(Fork, forking_while_a_kernel_runs_disturbs_nobody) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(64 * kGranule));
  std::vector<Completion> launches;
  for (int i = 0; i < 8; ++i)
    launches.push_back(world.runtime().launch({{4}, {64}}, IncrementBytes{}, aprime::read_write(m)));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(ended_well(in_child([] {})));
  for (const Completion& launch : launches) EXPECT_NO_THROW(launch.wait());
  EXPECT_EQ(read_bytes(m), constant(64 * kGranule, 8));
}

}  // namespace
}  // namespace aprime::contract
