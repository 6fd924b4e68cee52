#include <array>
#include <cstdio>
#include <filesystem>

#include "tests/contract/contract.hpp"

// The ten rules of the scheme, one after the other: 8 to 10, what happens to the file.

namespace aprime::contract {
namespace {

using FileRules = Contract;
APRIME_CONTRACT_SUITE(FileRules);

TEST_P(FileRules, rule_8_sync_protects_the_copy_and_leaves_it_clean) {
  World world(GetParam());
  const std::string path = world.file(pattern(4 * kGranule));
  const Mapping m = world.map(path);
  world.store_on_device(m, granules(0, 3), 1);

  Delta delta(world);
  m.sync();
  EXPECT_EQ(delta.get().granules_copied_back, 3);
  EXPECT_EQ(world.runtime().stats(0).dirty_bytes, 0);
  EXPECT_EQ(plain_read(path, granules(0, 3)), constant(3 * kGranule, 1));
  for (std::uint64_t g = 0; g < 3; ++g) {
    EXPECT_EQ(report(m, g).place, Place::shared) << g;
    EXPECT_EQ(report(m, g).devices, 1) << "the device keeps it read-only";
  }
  m.sync();
  EXPECT_EQ(delta.get().granules_copied_back, 3) << "nothing is dirty";

  delta = Delta(world);
  world.touch_on_device(m, granules(0, 3));
  EXPECT_EQ(delta.get().granules_filled, 0);
  EXPECT_EQ(delta.get().faults.device_read, 0);
  world.increment_on_device(m, granules(1));
  EXPECT_EQ(delta.get().faults.device_write, world.faults(1)) << "the next store faults again";
  EXPECT_EQ(plain_read(path, granules(1)), constant(kGranule, 1));
  m.sync(granules(0));
  EXPECT_EQ(plain_read(path, granules(1)), constant(kGranule, 1)) << "not in the range";
  m.sync(granules(1));
  EXPECT_EQ(plain_read(path, granules(1)), constant(kGranule, 2));
}

TEST_P(FileRules, rule_8_the_background_flusher_writes_back_by_age) {
  World world(GetParam(), {.dirty_age_max = std::chrono::milliseconds(20)});
  const std::string path = world.file(pattern(2 * kGranule));
  const Mapping m = world.map(path);
  world.store_on_device(m, all_of(m), 1);
  EXPECT_TRUE(eventually([&] { return plain_read(path) == constant(2 * kGranule, 1); }));
  EXPECT_TRUE(eventually([&] { return world.runtime().stats().dirty_bytes == 0; }));
  EXPECT_EQ(report(m, 0).devices, 1) << "the device keeps its copy";
}

TEST_P(FileRules, rule_8_the_background_flusher_writes_back_by_amount) {
  World world(GetParam(),
              {.dirty_age_max = std::chrono::minutes(10), .dirty_bytes_max = ByteCount{2 * kGranule}});
  const std::string path = world.file(pattern(4 * kGranule));
  const Mapping m = world.map(path);
  world.store_on_device(m, all_of(m), 1);
  EXPECT_TRUE(eventually([&] { return plain_read(path) == constant(4 * kGranule, 1); }));
}

TEST_P(FileRules, rule_9_a_direct_read_sees_the_device_and_finds_its_bytes_on_disk) {
  World world(GetParam());
  const Bytes before = pattern(4 * kGranule);
  const std::string path = world.file(before);
  const Mapping m = world.map(path);
  world.store_on_device(m, granules(1, 2), 0x11);

  const auto unit = static_cast<std::size_t>(m.direct_alignment().value);
  alignas(4096) static std::array<std::byte, 4 * kGranule> buffer;
  ASSERT_EQ(buffer.size() % unit, 0);
  m.read_direct(ByteOffset{0}, buffer);
  EXPECT_EQ(Bytes(buffer.begin(), buffer.end()), with(before, kGranule, 2 * kGranule, 0x11));
  EXPECT_EQ(plain_read(path), with(before, kGranule, 2 * kGranule, 0x11)) << "pulled back first";
  EXPECT_EQ(report(m, 1).place, Place::shared);
}

TEST_P(FileRules, rule_9_after_a_direct_write_no_device_has_a_copy) {
  World world(GetParam(), {.devices = 2});
  const Bytes before = pattern(4 * kGranule);
  const std::string path = world.file(before);
  const Mapping m = world.map(path);
  const auto host = m.host<const std::byte>();
  world.store_on_device(m, granules(0, 2), 0x11, 0);
  world.touch_on_device(m, granules(2, 2), 0);
  world.touch_on_device(m, granules(2, 2), 1);

  alignas(4096) static std::array<std::byte, 2 * kGranule> buffer;
  buffer.fill(std::byte{0x22});
  m.write_direct(ByteOffset{kGranule}, buffer);
  EXPECT_EQ(report(m, 0).devices, 1) << "not in the range";
  EXPECT_EQ(report(m, 1).devices, 0);
  EXPECT_EQ(report(m, 2).devices, 0);
  EXPECT_EQ(report(m, 3).devices, 3);
  EXPECT_EQ(host[kGranule], std::byte{0x22});
  Bytes now = with(before, 0, kGranule, 0x11);
  now = with(now, kGranule, 2 * kGranule, 0x22);
  for (const unsigned d : {1u, 0u}) EXPECT_EQ(world.seen_by_device(m, d), now) << d;
}

TEST_P(FileRules, rule_9_direct_writes_keep_device_bytes_beside_them) {
  World world(GetParam());
  const Mapping m = world.map_new(pattern(kGranule));
  world.store_on_device(m, all_of(m), 0x11);
  alignas(4096) static std::array<std::byte, kPage> buffer;
  buffer.fill(std::byte{0x22});
  m.write_direct(ByteOffset{kPage}, buffer);
  EXPECT_EQ(world.seen_by_device(m), with(constant(kGranule, 0x11), kPage, kPage, 0x22));
}

// Rule 10: the same calls on a plain file after plain writes, and on a mapped file after device stores, must
// leave the same bytes. The stores cover the whole file.
class Rule10 : public Contract {
 protected:
  static constexpr std::size_t kSize = 5 * kGranule + 1000;
  static constexpr Byte kStored = 0x77;

  void compare(const std::function<void(const std::string&)>& plain_call,
               const std::function<void(Mapping&)>& call) {
    World world(GetParam());
    const std::string reference = world.file(constant(kSize, kStored));
    plain_call(reference);
    const std::string path = world.file(pattern(kSize));
    Mapping m = world.map(path);
    world.store_on_device(m, all_of(m), kStored);
    call(m);
    m.sync();
    EXPECT_EQ(plain_read(path), plain_read(reference)) << "after sync";
    EXPECT_EQ(world.seen_by_device(m),
              part(plain_read(reference), 0, static_cast<std::size_t>(m.size_bytes().value)));
    m.close();
    EXPECT_EQ(plain_read(path), plain_read(reference)) << "after unmapping";
  }
};
APRIME_CONTRACT_SUITE(Rule10);

TEST_P(Rule10, rule_10_truncate_while_dirty) {
  for (const std::uint64_t size :
       {std::uint64_t{0}, std::uint64_t{1}, kGranule, 2 * kGranule + kPage + 17, kSize - 1})
    compare([&](const std::string& path) { plain_truncate(path, size); },
            [&](Mapping& m) { m.resize(ByteCount{size}); });
}

TEST_P(Rule10, rule_10_truncate_and_grow_again_while_dirty) {
  for (const std::uint64_t size : {std::uint64_t{0}, kGranule, 2 * kGranule + 17})
    compare(
        [&](const std::string& path) {
          plain_truncate(path, size);
          plain_truncate(path, kSize + kGranule);
        },
        [&](Mapping& m) {
          m.resize(ByteCount{size});
          m.resize(ByteCount{kSize + kGranule});
        });
}

TEST_P(Rule10, rule_10_hole_punch_while_dirty) {
  for (const ByteRange hole :
       {range(0, kGranule), range(kGranule, 2 * kGranule), range(100, 50), range(kGranule - 100, 200),
        range(kPage, 3 * kGranule), range(5 * kGranule, 1000)}) {
    compare(
        [&](const std::string& path) {
          plain_write(path, hole.first.value, Bytes(static_cast<std::size_t>(hole.size.value)));
        },
        [&](Mapping& m) { m.discard(hole); });
  }
}

TEST_P(Rule10, rule_10_unlink_and_rename_while_dirty) {
  compare([](const std::string&) {},
          [](Mapping& m) {
            const std::string aside = m.path() + "-renamed";
            ASSERT_EQ(std::rename(m.path().c_str(), aside.c_str()), 0);
            m.sync();
            EXPECT_EQ(plain_read(aside), constant(kSize, kStored));
            ASSERT_EQ(std::rename(aside.c_str(), m.path().c_str()), 0);
          });

  World world(GetParam());
  const std::string path = world.file(pattern(kSize));
  const std::string second_name = path + "-link";
  std::filesystem::create_hard_link(path, second_name);
  Mapping m = world.map(path);
  world.store_on_device(m, all_of(m), kStored);
  ASSERT_EQ(::remove(path.c_str()), 0);
  m.close();
  EXPECT_EQ(plain_read(second_name), constant(kSize, kStored))
      << "the bytes belong to the inode, not to the name";

  const std::string gone = world.file(pattern(kSize));
  Mapping nameless = world.map(gone);
  world.store_on_device(nameless, all_of(nameless), kStored);
  ASSERT_EQ(::remove(gone.c_str()), 0);
  EXPECT_NO_THROW(nameless.sync());
  EXPECT_EQ(read_bytes(nameless), constant(kSize, kStored));
  EXPECT_NO_THROW(nameless.close());
  EXPECT_FALSE(std::filesystem::exists(gone));
}

}  // namespace
}  // namespace aprime::contract
