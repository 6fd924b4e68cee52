#include <sys/stat.h>

#include <filesystem>

#include "tests/contract/contract.hpp"

// The ten rules of the scheme, one after the other: 1 to 7.

namespace aprime::contract {
namespace {

using Rules = Contract;
APRIME_CONTRACT_SUITE(Rules);

TEST_P(Rules, rule_1_home_stays_where_it_is_in_the_page_cache) {
  World world(GetParam());
  const Bytes before = pattern(4 * kGranule);
  const std::string path = world.file(before);
  struct stat as_it_was {};
  ASSERT_EQ(::stat(path.c_str(), &as_it_was), 0);
  {
    const Mapping m = world.map(path);
    world.store_on_device(m, granules(1), 'x');
    EXPECT_EQ(plain_read(path), before) << "the device's copy is a second one";
    struct stat now {};
    ASSERT_EQ(::stat(path.c_str(), &now), 0);
    EXPECT_EQ(now.st_ino, as_it_was.st_ino);
    EXPECT_EQ(now.st_size, as_it_was.st_size);
    EXPECT_EQ(
        std::distance(std::filesystem::directory_iterator(std::filesystem::path(path).parent_path()), {}), 2)
        << "this file and the one for results: nothing else was made";
  }
  EXPECT_EQ(plain_read(path), with(before, kGranule, kGranule, 'x'));
}

TEST_P(Rules, rule_2_every_device_access_faults_until_the_page_is_given) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(8 * kGranule));
  for (std::uint64_t g = 0; g < 8; ++g) EXPECT_EQ(report(m, g).place, Place::host) << g;

  m.advise(all_of(m), Advice::random);
  const Delta first(world);
  world.touch_on_device(m, granules(1));
  world.touch_on_device(m, granules(6));
  EXPECT_EQ(first.get().granules_filled, 2);
  EXPECT_EQ(first.get().bytes_filled, 2 * kGranule);
  EXPECT_EQ(first.get().faults.device_read, world.faults(2));
  for (const std::uint64_t g : {0, 2, 3, 4, 5, 7}) EXPECT_EQ(report(m, g).devices, 0) << g;

  const Delta again(world);
  world.touch_on_device(m, granules(1));
  EXPECT_EQ(again.get().granules_filled, 0);
  EXPECT_EQ(again.get().faults.device_read, 0) << "it has been given";
}

TEST_P(Rules, rule_3_device_read_protects_and_copies) {
  World world(GetParam());
  const Bytes before = pattern(4 * kGranule);
  const Mapping m = world.map_new(before);
  const auto host = m.host<std::byte>();

  EXPECT_EQ(world.seen_by_device(m, granules(1, 2)), part(before, kGranule, 2 * kGranule));
  for (const std::uint64_t g : {1, 2}) {
    const GranuleReport r = report(m, g);
    EXPECT_EQ(r.place, Place::shared);
    EXPECT_TRUE(r.host_may_read);
    EXPECT_FALSE(r.host_may_write);
    EXPECT_EQ(r.devices, 1);
  }
  const Delta delta(world);
  EXPECT_EQ(host[kGranule], before[kGranule]);
  EXPECT_EQ(delta.get().faults.host_read, 0) << "the CPU may still read";
  host[kGranule] = std::byte{0xee};
  EXPECT_EQ(delta.get().faults.host_write, 1) << "but not store";
  EXPECT_EQ(world.seen_by_device(m, granules(1, 2)), with(part(before, kGranule, 2 * kGranule), 0, 1, 0xee));
}

TEST_P(Rules, rule_3_a_read_never_grants_a_write_right) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(4 * kGranule));
  ASSERT_EQ(m.access(), Access::read_write);
  world.touch_on_device(m, all_of(m));
  for (std::uint64_t g = 0; g < 4; ++g) EXPECT_EQ(report(m, g).place, Place::shared) << g;

  const Delta store(world);
  world.store_on_device(m, granules(2), 7);
  EXPECT_EQ(store.get().faults.device_write, world.faults(1))
      << "the store faults although the page is there";
  EXPECT_EQ(store.get().granules_filled, 0) << "the copy is current";
  EXPECT_EQ(report(m, 1).place, Place::shared);
  EXPECT_EQ(report(m, 2).place, Place::device);
}

TEST_P(Rules, rule_4_device_write_takes_the_page_from_every_cpu_mapping) {
  World world(GetParam());
  const Bytes before = pattern(4 * kGranule);
  const std::string path = world.file(before);
  const Mapping m = world.map(path);
  const Mapping other = world.map(path);
  const auto host = m.host<std::byte>();
  const auto other_host = other.host<const std::byte>();

  const Delta delta(world);
  world.store_on_device(m, granules(1), 0x5a);
  const GranuleReport r = report(m, 1);
  EXPECT_EQ(r.place, Place::device);
  EXPECT_FALSE(r.host_may_read);
  EXPECT_FALSE(r.host_may_write);
  EXPECT_EQ(r.devices, 1);
  EXPECT_EQ(delta.get().dirty_bytes, kGranule) << "home is marked not up to date";
  EXPECT_EQ(plain_read(path, granules(1)), part(before, kGranule, kGranule));

  EXPECT_EQ(other_host[kGranule + 5], std::byte{0x5a});
  EXPECT_EQ(delta.get().faults.host_read, 1);
  EXPECT_EQ(host[kGranule + 5], std::byte{0x5a});
  EXPECT_LE(delta.get().faults.host_read, 2) << "one for each view";
}

TEST_P(Rules, rule_4_many_device_threads_store_at_once) {
  World world(GetParam());
  const Mapping m = world.map_new(Bytes(16 * kGranule));
  constexpr unsigned kThreads = 32 * 64;
  constexpr int kLaunches = 4;
  for (int i = 0; i < kLaunches; ++i)
    world.runtime().launch({{32}, {64}}, AtomicIncrement{}, aprime::read_write(m), std::size_t{1027});
  for (int i = 0; i < kLaunches; ++i)
    world.runtime().launch({{32}, {64}}, AtomicIncrement{}, aprime::read_write(m), std::size_t{0});
  std::uint64_t sum = 0;
  world.runtime().launch({{1}, {1}}, AtomicIncrement{}, aprime::read_write(m), std::size_t{0}).wait();
  for (const unsigned word : m.host<const unsigned>()) sum += word;
  EXPECT_EQ(sum, 2 * kLaunches * kThreads + 1);
}

TEST_P(Rules, rule_5_cpu_read_by_pointer_copies_back_and_both_may_read) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(4 * kGranule));
  const auto host = m.host<const std::byte>();
  world.store_on_device(m, granules(1, 2), 9);

  const Delta delta(world);
  EXPECT_EQ(host[kGranule + 77], std::byte{9});
  EXPECT_EQ(delta.get().granules_copied_back, 1);
  EXPECT_EQ(delta.get().faults.host_read, 1);
  EXPECT_EQ(static_cast<std::int64_t>(delta.get().dirty_bytes), -static_cast<std::int64_t>(kGranule));
  const GranuleReport r = report(m, 1);
  EXPECT_EQ(r.place, Place::shared);
  EXPECT_TRUE(r.host_may_read);
  EXPECT_FALSE(r.host_may_write);
  EXPECT_EQ(r.devices, 1);
  EXPECT_EQ(report(m, 2).place, Place::device) << "nobody asked for this one";

  const Delta device(world);
  world.touch_on_device(m, granules(1));
  EXPECT_EQ(device.get().granules_filled, 0);
  EXPECT_EQ(device.get().faults.device_read, 0);
  world.store_on_device(m, granules(1), 10);
  EXPECT_EQ(device.get().faults.device_write, world.faults(1)) << "the copy was write-protected";
  EXPECT_EQ(host[kGranule + 77], std::byte{10});
}

TEST_P(Rules, rule_5_cpu_read_call_copies_back_and_marks_home_dirty) {
  World world(GetParam());
  const std::string path = world.file(pattern(4 * kGranule));
  const Mapping m = world.map(path);
  world.store_on_device(m, granules(1, 2), 9);

  const Delta delta(world);
  EXPECT_EQ(read_bytes(m, range(kGranule + 100, 50), HostAccess::migrate), constant(50, 9));
  EXPECT_EQ(delta.get().granules_copied_back, 1);
  EXPECT_EQ(delta.get().bytes_bounced, 0);
  EXPECT_EQ(report(m, 1).place, Place::shared);
  EXPECT_EQ(report(m, 1).devices, 1);
  EXPECT_EQ(plain_read(path, granules(1)), constant(kGranule, 9)) << "home is up to date for everyone";
}

TEST_P(Rules, rule_6_cpu_write_by_pointer_takes_the_copy_from_the_device_first) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(4 * kGranule));
  const auto host = m.host<std::byte>();
  world.store_on_device(m, granules(0, 4), 3);

  const Delta delta(world);
  host[2 * kGranule + 1] = std::byte{4};
  EXPECT_EQ(delta.get().faults.host_write, 1);
  EXPECT_EQ(delta.get().granules_copied_back, 1) << "the device's other bytes are not lost";
  EXPECT_EQ(report(m, 2).place, Place::host);
  EXPECT_EQ(report(m, 2).devices, 0);
  EXPECT_EQ(world.seen_by_device(m, granules(2)), with(constant(kGranule, 3), 1, 1, 4));
  EXPECT_EQ(delta.get().granules_filled, 1);
}

TEST_P(Rules, rule_6_cpu_write_call_takes_clean_copies_from_every_device) {
  World world(GetParam(), {.devices = 2});
  const Bytes before = pattern(2 * kGranule);
  const Mapping m = world.map_new(before);
  world.touch_on_device(m, all_of(m), 0);
  world.touch_on_device(m, all_of(m), 1);
  EXPECT_EQ(report(m, 0).devices, 3);

  write_bytes(m, 10, constant(5, 'w'), HostAccess::migrate);
  EXPECT_EQ(report(m, 0).devices, 0);
  EXPECT_EQ(report(m, 1).devices, 3);
  for (const unsigned d : {0u, 1u}) EXPECT_EQ(world.seen_by_device(m, d), with(before, 10, 5, 'w')) << d;
}

TEST_P(Rules, rule_6_a_write_of_a_whole_granule_replaces_the_device_bytes) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(3 * kGranule));
  world.store_on_device(m, all_of(m), 3);
  const Delta delta(world);
  write_bytes(m, kGranule, constant(kGranule, 4), HostAccess::migrate);
  EXPECT_EQ(report(m, 1).devices, 0);
  EXPECT_EQ(static_cast<std::int64_t>(delta.get().dirty_bytes), -static_cast<std::int64_t>(kGranule));
  EXPECT_EQ(world.seen_by_device(m), with(constant(3 * kGranule, 3), kGranule, kGranule, 4));
  EXPECT_EQ(read_bytes(m), with(constant(3 * kGranule, 3), kGranule, kGranule, 4));
}

TEST_P(Rules, rule_7_a_bounced_access_leaves_the_page_with_the_device) {
  World world(GetParam());
  const Bytes before = pattern(2 * kGranule);
  const std::string path = world.file(before);
  const Mapping m = world.map(path);
  world.store_on_device(m, all_of(m), 1);

  const Delta delta(world);
  EXPECT_EQ(read_bytes(m, range(kPage - 3, 6), HostAccess::bounce), constant(6, 1));
  write_bytes(m, 2 * kPage - 2, constant(4, 2), HostAccess::bounce);
  EXPECT_EQ(delta.get().bytes_bounced, 10);
  EXPECT_EQ(delta.get().granules_copied_back, 0);
  EXPECT_EQ(delta.get().dirty_bytes, 0);
  EXPECT_EQ(report(m, 0).place, Place::device_dirty);
  EXPECT_EQ(report(m, 1).place, Place::device) << "not accessed";
  EXPECT_EQ(plain_read(path), before) << "home is as stale as before";

  const Bytes now = with(constant(2 * kGranule, 1), 2 * kPage - 2, 4, 2);
  EXPECT_EQ(world.seen_by_device(m), now);
  EXPECT_EQ(delta.get().granules_filled, 0);
  world.increment_on_device(m, all_of(m));
  EXPECT_EQ(read_bytes(m), incremented(now)) << "the next stores land on what was bounced";
}

TEST_P(Rules, rule_7_the_choice_is_per_mapping_and_per_call) {
  World world(GetParam(), {.host_access = HostAccess::bounce});
  const std::string path = world.file(pattern(4 * kGranule));
  const Mapping bouncing = world.map(path);
  const Mapping migrating =
      world.runtime().map(path, Access::read_write, {.host_access = HostAccess::migrate});
  world.store_on_device(bouncing, all_of(bouncing), 1);

  const Delta delta(world);
  read_bytes(bouncing, range(0, 1));
  EXPECT_EQ(delta.get().granules_copied_back, 0);
  read_bytes(bouncing, range(0, 1), HostAccess::migrate);
  EXPECT_EQ(delta.get().granules_copied_back, 1);
  read_bytes(migrating, granules(1, 1), HostAccess::bounce);
  EXPECT_EQ(delta.get().granules_copied_back, 1);
  read_bytes(migrating, range(kGranule, 1));
  EXPECT_EQ(delta.get().granules_copied_back, 2);
}

TEST_P(Rules, rule_7_adaptive_access_migrates_once_a_granule_has_been_bounced) {
  World world(GetParam(), {.host_access = HostAccess::adaptive});
  const Mapping m = world.map_new(pattern(2 * kGranule));
  world.store_on_device(m, all_of(m), 1);

  const Delta delta(world);
  for (int quarter = 0; quarter < 4; ++quarter) read_bytes(m, range(0, kGranule / 4));
  EXPECT_EQ(delta.get().granules_copied_back, 0);
  EXPECT_EQ(delta.get().bytes_bounced, kGranule);
  read_bytes(m, range(0, kGranule / 4));
  EXPECT_EQ(delta.get().granules_copied_back, 1);
  EXPECT_EQ(report(m, 1).place, Place::device) << "each granule has its own account";
  read_bytes(m, range(0, kGranule / 4));
  EXPECT_EQ(delta.get().bytes_bounced, kGranule) << "home has it now";
}

}  // namespace
}  // namespace aprime::contract
