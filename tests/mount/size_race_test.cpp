// The size of a file changes for a program while others have granules of it, or take them.

#include <fmt/format.h>
#include <linux/fuse.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>

#include "aprime/device_span.hpp"
#include "tests/mount/mount_races.hpp"

namespace aprime {
namespace {

using namespace test;

/// Stores to what it was given, and stays until it is told to go on.
struct StoreAndStay {
  APRIME_DEVICE void operator()(LeasedSpan<unsigned char> bytes, std::atomic<bool>* is_there,
                                const std::atomic<bool>* goes_on) const {
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = 7;
    is_there->store(true);
    is_there->notify_all();
    goes_on->wait(false);
  }
};

/// Faults on the third granule, and then on the first.
struct StoreToThirdAndFirst {
  APRIME_DEVICE void operator()(device_span<unsigned char> bytes) const {
    bytes.store(2 * kGranule, 8);
    bytes.store(0, 8);
  }
};

class SizeRaces : public MountRaces {
 protected:
  void append_plainly(const std::string& text) const {
    std::ofstream(mounted_.plain("file"), std::ios::app) << text;
  }
};

// While the size of a file changes, the kernel holds back what it has to write; a recall that waits for that
// may not keep the change waiting.
TEST_P(SizeRaces, truncate_while_a_recall_waits_for_pages_held_back) {
  client_.must("store 16384 16384 1");
  Hold recall({Call::invalidate, When::before, granule(1)});
  std::future<unsigned> missed = device_misses(bytes(kGranule, 1000), 1);
  const pid_t recaller = recall.wait();
  Hold cut({Call::ftruncate, When::before});
  other_.begin("truncate 20000");
  cut.wait();
  recall.release();
  wait_until_blocked(recaller);
  cut.release();
  EXPECT_EQ(other_.end(), "ok");
  EXPECT_EQ(missed.get(), 0u);
  other_.must(fmt::format("truncate {}", kSize));
  EXPECT_EQ(device_misses(bytes(kGranule, 20000 - kGranule), 1).get(), 0u);
  EXPECT_EQ(device_misses(bytes(20000, kSize - 20000), 0).get(), 0u);
  EXPECT_EQ(client_.bytes("load 19990 20"), all(10, 1) + all(10, 0));
}

// The same, by a launch that has pinned a granule which the change of the size has to do with: the one that
// is cut, or one that goes whole.
TEST_P(SizeRaces, truncate_while_a_launch_with_pins_recalls_another_granule) {
  for (const std::uint64_t size : {5000, 0}) {
    client_.must("store 16384 16384 1");
    Hold recall({Call::invalidate, When::before, granule(1)});
    std::future<void> stored = device_stores(bytes(0, 2 * kGranule), 2);
    const pid_t recaller = recall.wait();
    Hold cut({Call::ftruncate, When::before});
    other_.begin(fmt::format("truncate {}", size));
    cut.wait();
    recall.release();
    wait_until_blocked(recaller);
    cut.release();
    EXPECT_EQ(other_.end(), "ok");
    try {
      stored.get();
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("beyond the end"), std::string::npos) << error.what();
    }
    other_.must(fmt::format("truncate {}", kSize));
    EXPECT_EQ(device_misses(bytes(size, kSize - size), 0).get(), 0u);
    EXPECT_EQ(client_.bytes(fmt::format("load {} 10", size)), all(10, 0));
  }
}

// The same, by a running kernel that has the granule, but is not in the way.
TEST_P(SizeRaces, growing_while_a_kernel_that_has_the_last_granule_faults_on_another) {
  other_.must(fmt::format("truncate {}", 2 * kGranule + 5000));
  client_.must("store 0 16384 1");
  Hold recall({Call::invalidate, When::before, granule(0)});
  std::future<void> stored = std::async(std::launch::async, [&] {
    mounted_.runtime()
        .launch(Grid::cover(1, 1), StoreToThirdAndFirst{},
                demand_read_write(mapping_, bytes(0, 2 * kGranule + 5000)))
        .wait();
  });
  const pid_t recaller = recall.wait();
  Hold asked({Call::request, When::before, bytes(0, kSize), FUSE_SETATTR});
  other_.begin(fmt::format("truncate {}", kSize));
  asked.wait();
  recall.release();
  wait_until_blocked(recaller);
  asked.release();
  EXPECT_EQ(other_.end(), "ok");
  stored.get();
  EXPECT_EQ(client_.bytes("load 0 2"), all(1, 8) + all(1, 1));
  EXPECT_EQ(client_.bytes(fmt::format("load {} 2", 2 * kGranule)), all(1, 8) + all(1, 'h'));
}

// A granule that a running kernel has cannot be made to end in zeros; it need not, until the file grows
// again.
TEST_P(SizeRaces, truncate_and_grow_while_a_kernel_has_the_granule) {
  std::atomic<bool> is_there{false}, goes_on{false};
  std::future<void> stored = std::async(std::launch::async, [&] {
    mounted_.runtime()
        .launch(Grid::cover(1, 1), StoreAndStay{}, read_write(mapping_, granule(1)), &is_there, &goes_on)
        .wait();
  });
  is_there.wait(false);
  other_.must("truncate 20000");
  other_.begin(fmt::format("truncate {}", kSize));
  std::future<std::string> grown = std::async(std::launch::async, [&] { return other_.end(); });
  // A device with page faults waits for its kernel's next one instead.
  if (GetParam() == DeviceKind::emulated_strict) {
    EXPECT_EQ(grown.wait_for(std::chrono::milliseconds(200)), std::future_status::timeout);
  }
  goes_on.store(true);
  goes_on.notify_all();
  EXPECT_EQ(grown.get(), "ok");
  stored.get();
  EXPECT_EQ(device_misses(bytes(kGranule, 20000 - kGranule), 7).get(), 0u);
  EXPECT_EQ(device_misses(bytes(20000, kSize - 20000), 0).get(), 0u);
  EXPECT_EQ(client_.bytes("load 19990 20"), all(10, 7) + all(10, 0));
}

TEST_P(SizeRaces, growing_fails_where_a_kernel_keeps_the_granule) {
  if (GetParam() != DeviceKind::emulated_strict) return;  // keeps no granule
  other_.must("truncate 20000");
  std::atomic<bool> is_there{false}, goes_on{false};
  std::future<void> stored = std::async(std::launch::async, [&] {
    mounted_.runtime()
        .launch(Grid::cover(1, 1), StoreAndStay{}, read_write(mapping_, bytes(kGranule, 20000 - kGranule)),
                &is_there, &goes_on)
        .wait();
  });
  is_there.wait(false);
  EXPECT_EQ(other_.ask(fmt::format("truncate {}", kSize)), fmt::format("errno {}", EBUSY));
  EXPECT_EQ(other_.ask("size"), "ok 20000");
  goes_on.store(true);
  goes_on.notify_all();
  stored.get();
  other_.must(fmt::format("truncate {}", kSize));
  EXPECT_EQ(client_.bytes("load 19990 20"), all(10, 7) + all(10, 0));
}

TEST_P(SizeRaces, recall_while_a_truncate_holds_the_granule) {
  client_.must("store 16384 16384 1");
  Hold cut({Call::ftruncate, When::before});
  other_.begin("truncate 20000");
  cut.wait();
  std::future<unsigned> missed = device_misses(bytes(kGranule, 20000 - kGranule), 1);
  cut.release();
  EXPECT_EQ(other_.end(), "ok");
  EXPECT_EQ(missed.get(), 0u);
}

// Who makes a file larger may have to wait, and the file may have become larger still meanwhile.
TEST_P(SizeRaces, a_growing_write_cuts_nothing_that_the_plain_path_has_appended) {
  other_.must("truncate 20000");
  mounted_.device_stores(mapping_, bytes(kGranule, 20000 - kGranule), 7);
  Hold comes_home({Call::pwrite, When::before, granule(1)});
  other_.begin("write 20000 10 1");
  comes_home.wait();
  append_plainly(std::string(1000, 'p'));
  comes_home.release();
  EXPECT_EQ(other_.end(), "ok");
  EXPECT_EQ(other_.ask("size"), "ok 21000");
  EXPECT_EQ(client_.bytes("read 19990 30"), all(10, 7) + all(10, 1) + all(10, 'p'));
  EXPECT_EQ(client_.bytes("read 20990 20"), all(10, 'p'));
}

TEST_P(SizeRaces, what_two_append_by_the_mount_and_by_the_plain_path_is_all_there) {
  other_.must("truncate 20000");
  Client appends;
  appends.must("open_appending " + mounted_.at("file"));
  mounted_.device_stores(mapping_, bytes(kGranule, 20000 - kGranule), 7);
  Hold comes_home({Call::pwrite, When::before, granule(1)});
  appends.begin("append 0 10 1");
  comes_home.wait();
  append_plainly(std::string(1000, 'p'));
  comes_home.release();
  EXPECT_EQ(appends.end(), "ok");
  EXPECT_EQ(other_.ask("size"), "ok 21010");
  EXPECT_EQ(client_.bytes("read 19990 20"), all(10, 7) + all(10, 'p'));
  EXPECT_EQ(client_.bytes("read 20990 20"), all(10, 'p') + all(10, 1));
}

TEST_P(SizeRaces, a_growing_write_cuts_nothing_that_the_program_itself_has_made_room_for) {
  other_.must("truncate 20000");
  Mapping mine = mounted_.map("file");
  Hold grows({Call::ftruncate, When::before});
  std::future<void> grown = std::async(std::launch::async, [&] { mine.resize(ByteCount{40000}); });
  grows.wait();
  Hold asked({Call::request, When::before, bytes(0, kSize), FUSE_WRITE});
  other_.begin("write 20000 10 1");
  const pid_t writer = asked.wait();
  asked.release();
  wait_until_asleep(writer, [] { return false; });
  grows.release();
  grown.get();
  EXPECT_EQ(other_.end(), "ok");
  EXPECT_EQ(other_.ask("size"), "ok 40000");
  EXPECT_EQ(client_.bytes("read 19990 30"), all(10, 'h') + all(10, 1) + all(10, 0));
}

TEST_P(SizeRaces, of_two_mappings_that_reach_the_end_one_makes_the_file_larger) {
  other_.must("truncate 20000");
  Mapping larger = mounted_.map("file");
  Mapping smaller = mounted_.map("file");
  Hold grows({Call::ftruncate, When::before});
  std::future<void> grown = std::async(std::launch::async, [&] { larger.resize(ByteCount{40000}); });
  grows.wait();
  std::promise<pid_t> waits;
  std::future<Errc> refused = std::async(std::launch::async, [&] {
    waits.set_value(::gettid());
    try {
      smaller.resize(ByteCount{30000});
    } catch (const Error& e) {
      return e.code();
    }
    return Errc::ok;
  });
  wait_until_asleep(waits.get_future().get(), [] { return false; });
  grows.release();
  grown.get();
  EXPECT_EQ(refused.get(), Errc::invalid_argument) << "the file ends elsewhere now";
  EXPECT_EQ(other_.ask("size"), "ok 40000");
  EXPECT_EQ(smaller.size_bytes(), ByteCount{20000});
}

TEST_P(SizeRaces, what_is_on_its_way_home_does_not_replace_what_is_added_behind_a_cut_that_was_noticed) {
  mounted_.device_stores(mapping_, granule(2), 9);
  Hold write({Call::pwrite, When::before, granule(2)});
  std::future<void> synced = std::async(std::launch::async, [&] { mapping_.sync(granule(2)); });
  write.wait();
  std::filesystem::resize_file(mounted_.plain("file"), kGranule);
  // Any of what notices a cut: it may wait for the write.
  std::future<void> noticed = std::async(std::launch::async, [&] {
    std::byte first{};
    mapping_.read(ByteOffset{0}, {&first, 1});
  });
  if (noticed.wait_for(std::chrono::seconds{1}) != std::future_status::ready) write.release();
  noticed.get();
  const std::string added(3 * kGranule, 'x');
  std::fstream file(mounted_.plain("file"), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(kGranule);
  file << added << std::flush;
  write.release();
  synced.get();
  EXPECT_TRUE(mounted_.content("file").substr(kGranule) == added);
}

TEST_P(SizeRaces, what_is_on_its_way_home_does_not_make_a_file_that_is_cut_longer_again) {
  mounted_.device_stores(mapping_, granule(2), 9);
  Hold write({Call::pwrite, When::before, granule(2)});
  std::future<void> synced = std::async(std::launch::async, [&] { mapping_.sync(granule(2)); });
  write.wait();
  std::future<void> cut = std::async(std::launch::async, [&] { mapping_.resize(ByteCount{kGranule}); });
  if (cut.wait_for(std::chrono::seconds{1}) != std::future_status::ready) write.release();
  cut.get();
  write.release();
  synced.get();
  EXPECT_EQ(std::filesystem::file_size(mounted_.plain("file")), kGranule);
}

INSTANTIATE_TEST_SUITE_P(Each, SizeRaces, testing::Values(DeviceKind::emulated, DeviceKind::emulated_strict),
                         [](const auto& test) {
                           return test.param == DeviceKind::emulated ? "faulting" : "strict";
                         });

}  // namespace
}  // namespace aprime
