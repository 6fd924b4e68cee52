#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <future>
#include <thread>
#include <tuple>

#include "host/os/syscalls.hpp"
#include "tests/contract/contract.hpp"
#include "tests/test_scale.hpp"

// "What each observer may see", row by row.

namespace aprime::contract {
namespace {

using Observers = Contract;
APRIME_CONTRACT_SUITE(Observers);

/// A pipe, to give pointers to system calls with.
class Pipe {
 public:
  Pipe() { EXPECT_EQ(::pipe2(ends_.data(), O_NONBLOCK | O_CLOEXEC), 0); }
  ~Pipe() {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  int reader() const { return ends_[0]; }
  int writer() const { return ends_[1]; }

 private:
  std::array<int, 2> ends_{-1, -1};
};

TEST_P(Observers, cpu_pointer_is_always_coherent) {
  World world(GetParam());
  Bytes expected = pattern(4 * kGranule);
  const Mapping m = world.map_new(expected);
  const auto host = m.host<std::byte>();
  for (unsigned round = 0; round < 6; ++round) {
    for (std::size_t i = round; i < host.size(); i += 1009) expected[i] = host[i] = std::byte{0x40};
    world.increment_on_device(m, all_of(m));
    expected = incremented(std::move(expected));
    ASSERT_TRUE(std::equal(host.begin(), host.end(), expected.begin(), expected.end())) << round;
  }
}

TEST_P(Observers, cpu_pointer_of_every_mapping_and_thread_is_coherent) {
  World world(GetParam());
  const std::string path = world.file(pattern(8 * kGranule));
  const Mapping first = world.map(path);
  const Mapping second = world.map(path, Access::read);
  world.store_on_device(first, all_of(first), 0x31);
  std::vector<std::thread> threads;
  std::atomic<unsigned> wrong{0};
  for (const Mapping* m : {&first, &second, &first, &second})
    threads.emplace_back([&wrong, host = m->host<const std::byte>()] {
      for (const std::byte b : host) wrong += b != std::byte{0x31};
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(world.runtime().stats().granules_copied_back, 8) << "once, whoever asks";
}

TEST_P(Observers, a_store_through_a_read_only_pointer_is_the_ordinary_crash) {
  World world(GetParam());
  const Mapping m = world.map(world.file(pattern(kGranule)), Access::read);
  EXPECT_EQ(code_of([&] { m.host<std::byte>(); }), Errc::access_denied);
  EXPECT_EQ(code_of([&] { write_bytes(m, 0, constant(1, 1)); }), Errc::access_denied);
  EXPECT_EQ(code_of([&] { world.store_on_device(m, all_of(m), 1); }), Errc::access_denied);
  EXPECT_EQ(code_of([&] { m.host_lease(all_of(m), Right::read_write); }), Errc::access_denied);
}

// read() and write(), for every choice of what they do with a page that the device has.
using Choice = std::tuple<Personality, HostAccess>;
class Choices : public testing::TestWithParam<Choice> {
 protected:
  const Personality& personality() const { return std::get<0>(GetParam()); }
  HostAccess how() const { return std::get<1>(GetParam()); }
};
std::string name_of(const testing::TestParamInfo<Choice>& instance) {
  static constexpr std::array names{"_migrate", "_bounce", "_adaptive"};
  return std::get<0>(instance.param).name +
         std::string(names[static_cast<std::size_t>(std::get<1>(instance.param))]);
}
INSTANTIATE_TEST_SUITE_P(device, Choices,
                         testing::Combine(testing::ValuesIn(personalities()),
                                          testing::Values(HostAccess::migrate, HostAccess::bounce,
                                                          HostAccess::adaptive)),
                         name_of);

TEST_P(Choices, read_and_write_are_coherent) {
  World world(personality(), {.host_access = how()});
  Bytes expected = pattern(4 * kGranule + 333);
  const std::string path = world.file(expected);
  Mapping m = world.map(path);
  for (unsigned round = 0; round < 5; ++round) {
    const std::size_t at = 1000 + round * 4099;
    const std::size_t size = kGranule + round * 1003;
    write_bytes(m, at, constant(size, round + 1));
    expected = with(std::move(expected), at, size, round + 1);
    ASSERT_EQ(read_bytes(m), expected) << round;
    world.increment_on_device(m, all_of(m));
    expected = incremented(std::move(expected));
    ASSERT_EQ(read_bytes(m, range(at, size)), part(expected, at, size)) << round;
    ASSERT_EQ(world.seen_by_device(m), expected) << round;
  }
  m.close();
  EXPECT_EQ(plain_read(path), expected);
}

TEST_P(Choices, read_and_write_are_atomic_per_granule) {
  World world(personality(), {.host_access = how()});
  const Mapping m = world.map_new(constant(2 * kGranule, 0));
  std::atomic<bool> stop{false};
  std::atomic<unsigned> torn{0};
  std::thread reader([&] {
    Bytes bytes(kGranule);
    while (!stop) {
      m.read(ByteOffset{kGranule}, bytes);
      torn += std::any_of(bytes.begin(), bytes.end(), [&](std::byte b) { return b != bytes.front(); });
    }
  });
  std::thread writer([&] {
    for (unsigned v = 0; !stop; ++v) write_bytes(m, kGranule, constant(kGranule, v));
  });
  // Rights move to and fro meanwhile.
  for (int i = 0; i < test::scaled(64); ++i)
    world.runtime()
        .launch({{1}, {1}}, StoreAt{}, aprime::read_write(m, granules(0)), std::ptrdiff_t{0}, Byte{1})
        .wait();
  for (int i = 0; i < test::scaled(64); ++i) world.touch_on_device(m, granules(1));
  stop = true;
  reader.join();
  writer.join();
  EXPECT_EQ(torn, 0);
}

TEST_P(Choices, buffers_may_be_pointers_of_other_mappings) {
  World world(personality(), {.host_access = how()});
  const Mapping from = world.map_new(pattern(2 * kGranule));
  const Mapping to = world.map_new(Bytes(2 * kGranule));
  const auto from_host = from.host<const std::byte>();
  const auto to_host = to.host<std::byte>();
  world.store_on_device(from, all_of(from), 7);
  world.store_on_device(to, all_of(to), 8);
  to.write(ByteOffset{0}, from_host.first(kGranule));
  from.read(ByteOffset{0}, to_host.subspan(kGranule));
  EXPECT_EQ(read_bytes(to), constant(2 * kGranule, 7));
  to.write(ByteOffset{100}, to.host<const std::byte>().first(50));
  EXPECT_EQ(read_bytes(to), constant(2 * kGranule, 7)) << "even of the same one";
}

TEST_P(Choices, write_never_grows_the_file_and_read_ends_with_it) {
  World world(personality(), {.host_access = how()});
  const std::string path = world.file(pattern(kGranule + 100));
  const Mapping m = world.map(path);
  world.store_on_device(m, all_of(m), 1);
  EXPECT_EQ(code_of([&] { write_bytes(m, kGranule + 50, constant(51, 2)); }), Errc::out_of_range);
  EXPECT_EQ(code_of([&] { read_bytes(m, range(kGranule + 101, 1)); }), Errc::out_of_range);
  EXPECT_NO_THROW(read_bytes(m, range(kGranule + 100, 0)));
  EXPECT_EQ(read_bytes(m), constant(kGranule + 100, 1)) << "refused as a whole";
  EXPECT_EQ(plain_size(path), kGranule + 100);
}

TEST_P(Observers, a_pointer_given_to_a_system_call_works_inside_a_host_lease) {
  World world(GetParam());
  const std::string path = world.file(pattern(2 * kGranule));
  const Mapping m = world.map(path);
  const auto host = m.host<std::byte>();
  world.store_on_device(m, all_of(m), 0x61);
  const Pipe pipe;

  EXPECT_EQ(::write(pipe.writer(), host.data() + kGranule, 16), -1);
  EXPECT_EQ(errno, EFAULT) << "the kernel takes no trap on our behalf";
  {
    HostLease lease;
    EXPECT_TRUE(lease.bytes().empty());
    lease = m.host_lease(range(kGranule, 16), Right::read);
    ASSERT_EQ(lease.bytes().size(), 16);
    EXPECT_EQ(lease.bytes().data(), host.data() + kGranule);
    EXPECT_EQ(::write(pipe.writer(), lease.bytes().data(), 16), 16);
    EXPECT_EQ(report(m, 1).place, Place::shared) << "to read, both sides may have it";
  }
  {
    const HostLease lease = m.host_lease(range(kGranule + 100, 16), Right::read_write);
    EXPECT_EQ(::read(pipe.reader(), lease.bytes().data(), 16), 16);
    EXPECT_EQ(report(m, 1).place, Place::host);
  }
  EXPECT_EQ(world.seen_by_device(m, granules(1)), constant(kGranule, 0x61));
  EXPECT_EQ(report(m, 0).place, Place::device) << "not leased";
}

/// The kernel refuses one change of rights, the CPU's or the device's.
class OneChangeRefused {
 public:
  explicit OneChangeRefused(std::uint64_t nth) {
    os::sys::set_fault_plan({.call = os::sys::Call::mprotect, .nth = nth, .times = 1, .error = ENOMEM});
  }
  ~OneChangeRefused() { os::sys::clear_fault_plan(); }
  OneChangeRefused(const OneChangeRefused&) = delete;
  OneChangeRefused& operator=(const OneChangeRefused&) = delete;
};

TEST_P(Observers, a_host_lease_keeps_its_rights_when_memory_areas_run_short) {
  constexpr std::uint64_t kCount = 256;
  World world(GetParam(), {.granule = ByteCount{kPage}});
  const Mapping m = world.map_new(pattern(kCount * kPage));
  m.advise(all_of(m), Advice::random);
  const auto host = m.host<std::byte>();
  world.store_on_device(m, granules(0, 1, kPage), 0x73);  // whatever grows on demand has grown
  const HostLease lease = m.host_lease(granules(101, 7, kPage), Right::read_write);
  const Pipe pipe;
  for (std::uint64_t g = 0; g < kCount; g += 2) {
    if (g >= 100 && g < 110) continue;
    {
      const OneChangeRefused refused(1 + g / 2 % 3);
      world.store_on_device(m, granules(g, 1, kPage), 0x73);
    }
    // The kernel does this with the pages: no fault can give a right again.
    ASSERT_EQ(::write(pipe.writer(), lease.bytes().data() + 5 * kPage, 16), 16) << std::strerror(errno);
    ASSERT_EQ(::read(pipe.reader(), lease.bytes().data() + 6 * kPage, 16), 16) << std::strerror(errno);
  }
  EXPECT_GT(world.runtime().stats().over_protections, 0);
  EXPECT_EQ(host[20 * kPage], std::byte{0x73});
  EXPECT_EQ(read_bytes(m, range(107 * kPage, 16)), part(pattern(kCount * kPage), 106 * kPage, 16));
}

TEST_P(Observers, a_host_lease_is_not_in_the_way_of_the_cpu_itself) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(kGranule));
  const auto host = m.host<std::byte>();
  for (int way = 0; way < 3; ++way) {
    world.store_on_device(m, all_of(m), 0x11);
    const HostLease lease = m.host_lease(range(0, 16), Right::read);
    // The device has its copy still: it has to go.
    std::future<void> stored = std::async(std::launch::async, [&] {
      if (way == 0) host[500] = std::byte{0x22};
      if (way == 1) m.write(ByteOffset{500}, constant(1, 0x22));
      if (way == 2) m.host_lease(range(500, 1), Right::read_write).bytes()[0] = std::byte{0x22};
    });
    ASSERT_EQ(stored.wait_for(std::chrono::seconds(20)), std::future_status::ready) << "way " << way;
    stored.get();
    EXPECT_EQ(lease.bytes()[3], std::byte{0x11});
    EXPECT_EQ(read_bytes(m), with(constant(kGranule, 0x11), 500, 1, 0x22));
  }
}

TEST_P(Observers, a_host_lease_keeps_the_device_waiting_and_no_longer) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(kGranule));
  std::optional<HostLease> lease = m.host_lease(all_of(m), Right::read_write);
  const Completion store =
      world.runtime().launch({{1}, {64}}, StoreEverywhere{}, aprime::read_write(m), Byte{5});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(store.done());
  EXPECT_TRUE(report(m, 0).host_may_write);
  lease->bytes()[3] = std::byte{1};
  EXPECT_EQ(world.runtime().stats().spurious_faults, 0u)
      << "a lease is no fault, also where it gives nothing";
  lease.reset();
  store.wait();
  EXPECT_EQ(read_bytes(m), constant(kGranule, 5));

  // Those who only read go together.
  const HostLease reading = m.host_lease(all_of(m), Right::read);
  EXPECT_EQ(world.seen_by_device(m), constant(kGranule, 5));
}

TEST_P(Observers, more_host_leases_than_can_be_counted_are_refused) {
  constexpr std::size_t kMost = (1 << 14) - 1;
  World world(GetParam());
  const Mapping m = world.map_new(pattern(2 * kGranule));
  std::vector<HostLease> leases;
  for (std::size_t i = 0; i < kMost; ++i) leases.push_back(m.host_lease(range(i % kGranule, 1), Right::read));
  const Error refused = error_of([&] { m.host_lease(all_of(m), Right::read); });
  EXPECT_EQ(refused.code(), Errc::resources);
  EXPECT_NE(std::string(refused.what()).find("16383 leases"), std::string::npos) << refused.what();
  leases.pop_back();
  EXPECT_NO_THROW(m.host_lease(all_of(m), Right::read));
  leases.clear();
  world.store_on_device(m, all_of(m), 5);
  EXPECT_EQ(read_bytes(m), constant(2 * kGranule, 5));
}

TEST_P(Observers, other_processes_see_everything_after_sync_and_nothing_half) {
  World world(GetParam());
  const Bytes before = pattern(4 * kGranule);
  const std::string path = world.file(before);
  const Mapping m = world.map(path);
  m.host<std::byte>()[5] = std::byte{0xaa};
  EXPECT_EQ(plain_read(path, 5, 1), constant(1, 0xaa)) << "a store to the page cache, seen at once";
  world.store_on_device(m, granules(1), 0xbb);
  write_bytes(m, 2 * kGranule, constant(3, 0xcc));
  EXPECT_EQ(plain_read(path, granules(1)), part(before, kGranule, kGranule));
  m.sync();
  Bytes now = with(before, 5, 1, 0xaa);
  now = with(std::move(now), kGranule, kGranule, 0xbb);
  now = with(std::move(now), 2 * kGranule, 3, 0xcc);
  const int status = in_child([&] { ::_exit(plain_read(path) == now ? 0 : 1); });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "a real other process";
}

TEST_P(Observers, a_kernel_sees_every_host_write_made_before_its_launch) {
  World world(GetParam());
  const std::string path = world.file(pattern(4 * kGranule));
  const Mapping m = world.map(path);
  plain_write(path, 10, constant(10, 0xa1));
  EXPECT_EQ(world.seen_by_device(m, range(10, 10)), constant(10, 0xa1))
      << "by another process, before the device had it";
  m.host<std::byte>()[10] = std::byte{0xa2};
  EXPECT_EQ(world.seen_by_device(m, range(10, 1)), constant(1, 0xa2)) << "by pointer";
  write_bytes(m, 10, constant(1, 0xa3));
  EXPECT_EQ(world.seen_by_device(m, range(10, 1)), constant(1, 0xa3)) << "by write()";
  {
    const HostLease lease = m.host_lease(range(10, 1), Right::read_write);
    lease.bytes()[0] = std::byte{0xa4};
  }
  EXPECT_EQ(world.seen_by_device(m, range(10, 1)), constant(1, 0xa4)) << "in a host lease";
}

/// Waits for the host's word, then answers.
struct AnswerHost {
  APRIME_DEVICE void operator()(LeasedSpan<unsigned> question, LeasedSpan<unsigned> answer,
                                unsigned rounds) const {
    volatile unsigned* asked = question.data();
    volatile unsigned* answered = answer.data();
    for (unsigned round = 1; round <= rounds; ++round) {
      while (*asked != round) __nanosleep(1000);
      *answered = round;
    }
  }
};

TEST_P(Observers, a_running_kernel_sees_host_writes_made_before_its_fault) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(2 * kGranule));
  const auto host = m.host<volatile unsigned>();
  constexpr unsigned kRounds = 20;
  if (!world.hardware_paged()) {
    // A lease holds its rights until the launch ends; what the host writes before that is seen, and is all
    // there is.
    host[0] = kRounds;
    EXPECT_EQ(part(world.seen_by_device(m, range(0, 4)), 0, 1), constant(1, kRounds));
    return;
  }
  const Completion kernel =
      world.runtime().launch({{1}, {1}}, AnswerHost{}, aprime::read_write(m, granules(0)),
                             aprime::read_write(m, granules(1)), kRounds);
  for (unsigned round = 1; round <= kRounds; ++round) {
    host[0] = round;
    ASSERT_TRUE(eventually([&] { return host[kGranule / sizeof(unsigned)] == round; })) << round;
  }
  EXPECT_NO_THROW(kernel.wait());
}

TEST_P(Observers, two_devices_see_each_other) {
  World world(GetParam(), {.devices = 2});
  Bytes expected = pattern(4 * kGranule);
  const Mapping m = world.map_new(expected);
  for (unsigned round = 0; round < 6; ++round) {
    const Delta delta(world);
    world.increment_on_device(m, all_of(m), round % 2);
    expected = incremented(std::move(expected));
    EXPECT_EQ(report(m, 0).devices, 1u << round % 2) << "one writer";
    EXPECT_EQ(delta.get().granules_filled, 4);
    EXPECT_EQ(delta.get().granules_copied_back, round == 0 ? 0 : 4);
  }
  EXPECT_EQ(world.seen_by_device(m, 0), expected);
  EXPECT_EQ(world.seen_by_device(m, 1), expected);
  EXPECT_EQ(report(m, 0).devices, 3);
}

}  // namespace
}  // namespace aprime::contract
