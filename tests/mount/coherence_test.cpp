// The rules of the scheme with the CPU side in another process, by way of the mount, and the device side
// here.

#include <fmt/format.h>

#include <array>
#include <filesystem>
#include <string>
#include <tuple>
#include <vector>

#include "aprime/device_span.hpp"
#include "tests/mount/mounted.hpp"
#include "tests/test_scale.hpp"

namespace aprime {
namespace {

using namespace test;

struct LoadLast {
  APRIME_DEVICE void operator()(device_span<const unsigned char> bytes) const {
    static_cast<void>(bytes.load(bytes.size() - 1));
  }
};

class MountCoherence : public testing::TestWithParam<std::tuple<DeviceKind, HostAccess>> {
 protected:
  MountCoherence() {
    mounted_.make("file", std::string(kSize, 'h'));
    mapping_ = mounted_.map("file");
    client_.must("open " + mounted_.at("file"));
  }
  ~MountCoherence() override { mapping_ = Mapping(); }

  void device_stores(std::uint64_t at, std::uint64_t size, unsigned char value) {
    mounted_.device_stores(mapping_, bytes(at, size), value);
  }
  unsigned device_misses(std::uint64_t at, std::uint64_t size, unsigned char value) {
    return mounted_.device_misses(mapping_, bytes(at, size), value);
  }

  // The client, which may have pages of the file, goes before the mount that serves them.
  Mounted mounted_{std::get<0>(GetParam()), std::get<1>(GetParam())};
  Mapping mapping_;
  Client client_;
};

TEST_P(MountCoherence, device_load_sees_what_a_program_wrote_or_stored) {  // rule 3
  client_.must("write 100 50 1");
  EXPECT_EQ(device_misses(100, 50, 1), 0u);
  EXPECT_EQ(device_misses(150, 50, 'h'), 0u);
  client_.must("map");
  client_.must("store 100 50 2");  // no msync
  EXPECT_EQ(device_misses(100, 50, 2), 0u);
  client_.must("store 5000 50 3");
  client_.must("store 100 50 4");
  EXPECT_EQ(device_misses(100, 50, 4), 0u);
  EXPECT_EQ(device_misses(5000, 50, 3), 0u);
}

TEST_P(MountCoherence, what_a_resize_cuts_off_comes_back_to_nobody) {  // rule 10
  client_.must("map");
  EXPECT_EQ(client_.bytes("load 20000 5"), all(5, 'h'));  // a page that nobody stores to
  client_.must("store 50000 5 1");
  mapping_.resize(ByteCount{4096});
  mapping_.resize(ByteCount{kSize});
  for (const std::string at : {"20000", "50000"}) {
    EXPECT_EQ(client_.bytes("load " + at + " 5"), all(5, 0)) << at;
    EXPECT_EQ(client_.bytes("read " + at + " 5"), all(5, 0)) << at;
  }
  client_.must("msync");
  EXPECT_EQ(device_misses(4096, kSize - 4096, 0), 0u);
  EXPECT_EQ(mounted_.content("file"), std::string(4096, 'h') + std::string(kSize - 4096, '\0'));
}

TEST_P(MountCoherence, program_sees_what_a_device_stored) {  // rules 4 and 5
  device_stores(0, kSize, 1);
  EXPECT_EQ(client_.bytes("read 100 50"), all(50, 1));
  client_.must("map");
  EXPECT_EQ(client_.bytes("load 20000 50"), all(50, 1));
  device_stores(0, kSize, 2);
  EXPECT_EQ(client_.bytes("load 20000 50"), all(50, 2));
  EXPECT_EQ(client_.bytes("read 100 50"), all(50, 2));
  client_.must("open_direct " + mounted_.at("file"));
  EXPECT_EQ(client_.bytes("read 4096 4096"), all(4096, 2));  // rule 9
  Client other;
  device_stores(0, kSize, 3);
  other.must("open " + mounted_.at("file"));
  EXPECT_EQ(other.bytes("read 65500 100"), all(36, 3));
}

TEST_P(MountCoherence, program_writes_into_a_granule_that_the_device_owns) {  // rule 6
  device_stores(0, kSize, 1);
  client_.must("write 100 50 2");
  client_.must("write 40000 20000 3");  // parts, and whole granules
  EXPECT_EQ(device_misses(0, 100, 1), 0u);
  EXPECT_EQ(device_misses(100, 50, 2), 0u);
  EXPECT_EQ(device_misses(150, 40000 - 150, 1), 0u);
  EXPECT_EQ(device_misses(40000, 20000, 3), 0u);
  device_stores(0, kSize, 4);
  client_.must("map");
  client_.must("store 8000 500 5");
  EXPECT_EQ(device_misses(7000, 1000, 4), 0u);
  EXPECT_EQ(device_misses(8000, 500, 5), 0u);
  EXPECT_EQ(client_.bytes("read 8490 20"), all(10, 5) + all(10, 4));
}

TEST_P(MountCoherence, reading_leaves_or_moves_the_granule_as_was_chosen) {  // rule 7
  device_stores(0, kGranule, 1);
  EXPECT_EQ(client_.bytes("read 100 50"), all(50, 1));
  const bool on_device = mapping_.snapshot(bytes(0, 1)).front().place == GranuleReport::Place::device_dirty;
  EXPECT_EQ(on_device, std::get<1>(GetParam()) != HostAccess::migrate);
}

TEST_P(MountCoherence, cached_pages_are_owned_until_the_device_asks) {
  client_.must("map");
  EXPECT_EQ(client_.bytes("load 0 1"), all(1, 'h'));
  EXPECT_EQ(mapping_.snapshot(bytes(0, 1)).front().place, GranuleReport::Place::mount);
  EXPECT_EQ(device_misses(0, 100, 'h'), 0u);
  EXPECT_EQ(mapping_.snapshot(bytes(0, 1)).front().place, GranuleReport::Place::shared);
}

TEST_P(MountCoherence, fsync_makes_what_the_device_stored_durable) {  // rule 8
  device_stores(0, kSize, 1);
  client_.must("fsync");
  EXPECT_EQ(mounted_.content("file"), std::string(kSize, '\1'));
  client_.must("map");
  client_.must("store 0 16384 2");
  mapping_.sync();  // what a program stored, too, without its help
  EXPECT_EQ(mounted_.content("file"), std::string(kGranule, '\2') + std::string(kSize - kGranule, '\1'));
}

TEST_P(MountCoherence, direct_io_of_a_program) {  // rule 9
  device_stores(0, kSize, 1);
  client_.must("open_direct " + mounted_.at("file"));
  client_.must("write 4096 8192 2");
  EXPECT_EQ(client_.bytes("read 0 4096"), all(4096, 1));
  EXPECT_EQ(device_misses(4096, 8192, 2), 0u);
  EXPECT_EQ(device_misses(12288, 4096, 1), 0u);
}

TEST_P(MountCoherence, truncate_and_punch_reach_the_device) {  // rule 10
  device_stores(0, kSize, 1);
  client_.must("punch 100 20000");
  EXPECT_EQ(device_misses(0, 100, 1), 0u);
  EXPECT_EQ(device_misses(100, 20000, 0), 0u);
  EXPECT_EQ(device_misses(20100, 1000, 1), 0u);
  device_stores(0, kSize, 2);
  client_.must("truncate 5000");
  EXPECT_EQ(client_.ask("size"), "ok 5000");
  client_.must(fmt::format("truncate {}", kSize));
  EXPECT_EQ(client_.bytes("read 4990 20"), all(10, 2) + all(10, 0));
  EXPECT_EQ(device_misses(0, 5000, 2), 0u);
  EXPECT_EQ(device_misses(5000, kSize - 5000, 0), 0u);
}

TEST_P(MountCoherence, zeroed_and_allocated_ranges_reach_the_device) {
  device_stores(0, kSize, 1);
  client_.must("zero 100 20000");
  EXPECT_EQ(device_misses(0, 100, 1), 0u);
  EXPECT_EQ(device_misses(100, 20000, 0), 0u);
  EXPECT_EQ(device_misses(20100, 1000, 1), 0u);
  device_stores(0, kSize, 2);
  client_.must(fmt::format("allocate 0 {}", kSize + 1000));
  EXPECT_EQ(client_.ask("size"), fmt::format("ok {}", kSize + 1000));
  EXPECT_EQ(device_misses(0, kSize, 2), 0u);
  EXPECT_EQ(client_.bytes(fmt::format("read {} 20", kSize - 10)), all(10, 2) + all(10, 0));
}

TEST_P(MountCoherence, what_a_device_has_stored_to_a_hole_is_data) {
  mounted_.make("sparse", "");
  client_.must("open " + mounted_.at("sparse"));
  client_.must(fmt::format("truncate {}", kSize));
  Mapping sparse = mounted_.map("sparse");
  mounted_.device_stores(sparse, bytes(kGranule, kGranule), 1);
  EXPECT_EQ(client_.ask("data 0"), fmt::format("ok {}", kGranule));
  EXPECT_EQ(client_.ask(fmt::format("hole {}", kGranule)), fmt::format("ok {}", 2 * kGranule));
}

TEST_P(MountCoherence, what_a_program_has_stored_to_a_hole_is_data) {
  Client other;
  for (const std::string name : {"of_no_device", "of_a_device"}) {
    mounted_.make(name, "");
    std::filesystem::resize_file(mounted_.plain(name), kSize);
    const Mapping mapping = name == "of_a_device" ? mounted_.map(name) : Mapping();
    client_.must("open " + mounted_.at(name));
    client_.must("map");
    client_.must(fmt::format("store {} 4096 1", kGranule));
    other.must("open_reading " + mounted_.at(name));
    EXPECT_EQ(other.ask("data 0"), fmt::format("ok {}", kGranule)) << name;
    client_.must(fmt::format("store {} 4096 1", kGranule + 4096));
    EXPECT_EQ(other.ask(fmt::format("hole {}", kGranule)), fmt::format("ok {}", kGranule + 8192)) << name;
  }
}

TEST_P(MountCoherence, copy_by_the_kernel_is_of_what_the_device_stored) {
  device_stores(0, kSize, 1);
  client_.must("copy_to " + mounted_.at("copy"));
  EXPECT_EQ(mounted_.content("copy"), std::string(kSize, '\1'));
  Mapping copy = mounted_.map("copy");
  mounted_.device_stores(copy, kWhole, 2);
  mounted_.make("other", std::string(kSize, 'o'));
  client_.must("open " + mounted_.at("other"));
  client_.must("copy_to " + mounted_.at("copy"));
  EXPECT_EQ(mounted_.device_misses(copy, kWhole, 'o'), 0u);
}

TEST_P(MountCoherence, appends_of_two_programs_follow_each_other) {
  Client other;
  for (Client* client : {&client_, &other}) client->must("open_appending " + mounted_.at("file"));
  device_stores(0, kSize, 1);
  client_.must("append 0 100 2");
  other.must("append 0 100 3");
  client_.must("append 0 100 4");
  EXPECT_EQ(client_.bytes(fmt::format("read {} 400", kSize - 100)),
            all(100, 1) + all(100, 2) + all(100, 3) + all(100, 4));
  EXPECT_EQ(device_misses(0, kSize, 1), 0u);
}

TEST_P(MountCoherence, truncate_of_a_page_that_a_program_has_stored_to) {
  client_.must("map");
  client_.must("store 0 65536 1");
  client_.must("truncate 20000");
  client_.must(fmt::format("truncate {}", kSize));
  EXPECT_EQ(client_.bytes("load 19990 20"), all(10, 1) + all(10, 0));
  EXPECT_EQ(device_misses(0, 20000, 1), 0u);
  EXPECT_EQ(device_misses(20000, kSize - 20000, 0), 0u);
}

TEST_P(MountCoherence, rename_and_unlink_while_the_device_has_dirty_bytes) {  // rule 10
  device_stores(0, kSize, 1);
  client_.must(fmt::format("rename {} {}", mounted_.at("file"), mounted_.at("renamed")));
  client_.must("open " + mounted_.at("renamed"));
  EXPECT_EQ(client_.bytes("read 0 50"), all(50, 1));
  client_.must("unlink " + mounted_.at("renamed"));
  device_stores(0, kSize, 2);
  EXPECT_EQ(client_.bytes("read 50000 50"), all(50, 2));
  client_.must("write 0 10 3");
  EXPECT_EQ(device_misses(0, 10, 3), 0u);
}

TEST_P(MountCoherence, write_that_grows_the_file) {
  device_stores(0, kSize, 1);
  client_.must(fmt::format("write {} 30000 2", kSize - 100));
  EXPECT_EQ(client_.ask("size"), fmt::format("ok {}", kSize - 100 + 30000));
  EXPECT_EQ(device_misses(kSize - 100, 100, 2), 0u);
  EXPECT_EQ(client_.bytes(fmt::format("read {} 20", kSize - 110)), all(10, 1) + all(10, 2));
}

TEST_P(MountCoherence, pointer_of_this_process_and_mapping_of_another) {
  const std::span<unsigned char> here = mapping_.host<unsigned char>();
  client_.must("map");
  for (unsigned char round = 1; round < 20; ++round) {
    here[10] = round;
    EXPECT_EQ(client_.bytes("load 10 1"), all(1, round));
    client_.must(fmt::format("store 11 1 {}", round));
    EXPECT_EQ(here[11], round);
    device_stores(12, 1, round);
    EXPECT_EQ(client_.bytes("load 10 3"), all(3, round));
  }
}

TEST_P(MountCoherence, file_that_a_program_has_stored_to_is_mapped_and_let_go) {
  mounted_.make("later", std::string(kSize, 'h'));
  client_.must("open " + mounted_.at("later"));
  client_.must("map");
  client_.must("store 100 50 1");
  {
    Mapping later = mounted_.map("later");
    EXPECT_EQ(mounted_.device_misses(later, bytes(100, 50), 1), 0u);
    mounted_.device_stores(later, kWhole, 2);
    EXPECT_EQ(client_.bytes("load 100 50"), all(50, 2));
    mounted_.device_stores(later, kWhole, 3);
  }
  EXPECT_EQ(client_.bytes("load 100 50"), all(50, 3));
  EXPECT_EQ(client_.bytes("read 60000 50"), all(50, 3));
  client_.must("store 100 50 4");
  client_.must("msync");
  EXPECT_EQ(mounted_.content("later").substr(100, 50), std::string(50, '\4'));
}

// Its bytes came from the kernel's pages so far, and go on to: as the pages of a mapping do.
TEST_P(MountCoherence, file_that_a_program_reads_is_mapped_and_stored_to) {
  mounted_.make("read", std::string(kSize, 'h'));
  client_.must("open_reading " + mounted_.at("read"));
  Client other;
  other.must("open " + mounted_.at("read"));
  EXPECT_EQ(client_.bytes("read 0 50"), all(50, 'h'));
  EXPECT_EQ(client_.bytes(fmt::format("read 0 {}", kSize)), all(kSize, 'h'));
  other.must("write 100 50 1");
  EXPECT_EQ(client_.bytes("read 100 50"), all(50, 1));
  Mapping read = mounted_.map("read");
  mounted_.device_stores(read, kWhole, 2);
  EXPECT_EQ(client_.bytes("read 100 50"), all(50, 2));
  EXPECT_EQ(client_.bytes(fmt::format("read 0 {}", kSize)), all(kSize, 2));
  mounted_.device_stores(read, bytes(kGranule, 10), 3);
  EXPECT_EQ(client_.bytes(fmt::format("read {} 20", kGranule)), all(10, 3) + all(10, 2));
  other.must(fmt::format("write {} 5 4", kGranule));
  EXPECT_EQ(client_.bytes(fmt::format("read {} 10", kGranule)), all(5, 4) + all(5, 3));
  EXPECT_EQ(mounted_.device_misses(read, bytes(kGranule, 5), 4), 0u);
}

// However closely their requests follow each other.
TEST_P(MountCoherence, file_that_programs_use_all_the_time_is_mapped_and_let_go) {
  std::array<Client, 4> busy;
  for (Client& client : busy) client.must("open " + mounted_.at("file"));
  mapping_ = Mapping();
  const int reads = test::scaled(4000);
  for (Client& client : busy) client.begin(fmt::format("read_often 0 50 {}", reads));
  for (unsigned char value = 1; value <= 10; ++value) {
    mapping_ = mounted_.map("file");
    device_stores(0, kSize, value);
    mapping_ = Mapping();
  }
  for (Client& client : busy) EXPECT_EQ(client.end(), "ok");
  EXPECT_EQ(busy[0].bytes("read 0 50"), all(50, 10));
}

TEST_P(MountCoherence, file_on_the_own_mount_cannot_be_mapped) {
  try {
    static_cast<void>(mounted_.runtime().map(mounted_.at("file"), Access::read));
    FAIL() << "it was mapped";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Errc::cannot_open);
    EXPECT_NE(std::string(error.what()).find("source"), std::string::npos) << error.what();
  }
}

/// Adds 1 to every fourth group's word `first` of each 1 KiB.
struct Count {
  APRIME_DEVICE void operator()(LeasedSpan<unsigned> words, unsigned first) const {
    if (threadIdx.x == 0 && blockIdx.x == 0)
      for (std::size_t i = first; i < words.size(); i += 4 * 64) words[i] = words[i] + 1;
  }
};

// Everybody counts in words of his own, in the same pages: pages that are taken while they are stored to,
// asked for while they are taken, and stored to again, lose nothing.
TEST_P(MountCoherence, programs_and_device_count_in_the_same_pages) {
  Client second;
  mounted_.make("words", std::string(kSize, '\0'));
  Mapping words = mounted_.map("words");
  const std::string open = "open " + mounted_.at("words");
  for (Client* client : {&client_, &second}) {
    client->must(open);
    client->must("map");
  }
  const int rounds = test::scaled(200);
  const int turns = 4;
  for (int turn = 0; turn < turns; ++turn) {
    client_.begin(fmt::format("count 0 {}", rounds));
    second.begin(fmt::format("count 1 {}", rounds));
    for (int i = 0; i < rounds / 4; ++i)
      mounted_.runtime().launch(Grid::cover(1, 1), Count{}, read_write(words), 2u).wait();
    EXPECT_EQ(client_.end(), "ok");
    EXPECT_EQ(second.end(), "ok");
  }
  std::vector<unsigned> seen(kSize / sizeof(unsigned));
  words.read(ByteOffset{0}, std::as_writable_bytes(std::span(seen)));
  const auto by_program = static_cast<unsigned>(turns * rounds);
  const auto by_device = static_cast<unsigned>(turns * (rounds / 4));
  for (std::size_t i = 0; i < seen.size(); i += 4 * 64) {
    EXPECT_EQ(seen[i], by_program) << i;
    EXPECT_EQ(seen[i + 1], by_program) << i;
    EXPECT_EQ(seen[i + 2], by_device) << i;
  }
}

std::string name_of(const testing::TestParamInfo<std::tuple<DeviceKind, HostAccess>>& info) {
  const auto [kind, how] = info.param;
  return std::string(kind == DeviceKind::emulated ? "faulting" : "strict") +
         (how == HostAccess::migrate  ? "_migrate"
          : how == HostAccess::bounce ? "_bounce"
                                      : "_adaptive");
}

TEST_P(MountCoherence, device_reads_ahead_no_further_than_its_tables_reach) {
  // As many granules as fill a table's first part.
  constexpr std::uint64_t kTable = 65536 * kGranule;
  mounted_.make("sparse", "");
  std::filesystem::resize_file(mounted_.plain("sparse"), kTable);
  const Mapping mapping = mounted_.map("sparse");
  mapping.advise(bytes(0, kTable), Advice::sequential);
  std::filesystem::resize_file(mounted_.plain("sparse"), 2 * kTable);
  client_.must("open " + mounted_.at("sparse"));
  EXPECT_EQ(client_.bytes("read 0 1"), all(1, 0));  // the mount notices
  const ByteRange last = bytes(kTable - kGranule, kGranule);
  mounted_.runtime().launch(Grid::cover(1, 1), LoadLast{}, demand_read(mapping, last)).wait();
}

TEST_P(MountCoherence, programs_write_to_a_file_that_the_runtime_only_reads) {
  mounted_.make("read", std::string(kSize, 'r'));
  const Mapping reads = mounted_.map("read", Access::read);  // before any program has asked for it
  client_.must("open " + mounted_.at("read"));
  client_.must("write 100 5 1");
  client_.must("map");
  client_.must("store 20000 5 2");
  client_.must("msync");
  client_.must("punch 40000 5");
  EXPECT_EQ(mounted_.device_misses(reads, bytes(100, 5), 1), 0u);
  EXPECT_EQ(mounted_.device_misses(reads, bytes(20000, 5), 2), 0u);
  EXPECT_EQ(mounted_.device_misses(reads, bytes(40000, 5), 0), 0u);
  client_.must("truncate 30000");
  EXPECT_EQ(mounted_.content("read").size(), 30000u);
}

INSTANTIATE_TEST_SUITE_P(Each, MountCoherence,
                         testing::Values(std::tuple{DeviceKind::emulated, HostAccess::adaptive},
                                         std::tuple{DeviceKind::emulated, HostAccess::migrate},
                                         std::tuple{DeviceKind::emulated_strict, HostAccess::bounce}),
                         name_of);

}  // namespace
}  // namespace aprime
