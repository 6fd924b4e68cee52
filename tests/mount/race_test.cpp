// The races of giving and taking pages, one by one: a thread of the mount or of a device is stopped at the
// step that matters, and what must get along with it happens meanwhile. Two tests wait for time
// to pass.

#include <fmt/format.h>
#include <linux/fuse.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "aprime/device_span.hpp"
#include "host/os/syscalls.hpp"
#include "tests/mount/mount_races.hpp"

namespace aprime {
namespace {

using namespace test;
using namespace std::chrono_literals;

/// Whether these are ten bytes, each of them `before` or `after`: who shows them and who stores overlap.
bool is_old_or_new(std::string seen, unsigned char before, unsigned char after) {
  if (seen.starts_with("ok ")) seen.erase(0, 3);
  if (seen.size() != 20) return false;
  for (std::size_t i = 0; i < seen.size(); i += 2)
    if (seen.substr(i, 2) != all(1, before) && seen.substr(i, 2) != all(1, after)) return false;
  return true;
}

/// Adds 1 to the first word of every page, faulting for each.
struct CountOnDemand {
  APRIME_DEVICE void operator()(device_span<unsigned> words) const {
    for (std::size_t i = 0; i < words.size(); i += kPage / sizeof(unsigned))
      words.store(i, words.load(i) + 1);
  }
};

TEST_P(MountRaces, page_that_is_read_while_its_granule_is_taken_is_taken_again) {
  client_.must("store 0 100 1");
  const Hold recalls({Call::invalidate, When::before, granule(0), Moment::kNoRequest, 0});
  Hold taken({Call::invalidate, When::after, granule(0)});
  std::future<unsigned> missed = device_misses(bytes(0, 100), 2);
  taken.wait();
  client_.must("store 0 100 2");  // asks for the page again, and is answered at once
  taken.release();
  EXPECT_EQ(missed.get(), 0u);
  EXPECT_GE(recalls.count(), 2u);
}

TEST_P(MountRaces, page_that_is_on_its_way_while_its_granule_is_taken_again) {
  client_.must("store 4096 1 1");
  Hold taken({Call::invalidate, When::after, granule(0)});
  std::future<void> stored = device_stores(granule(0), 2);
  taken.wait();
  Hold reading({Call::pread, When::before, page(0), FUSE_READ});
  client_.begin("load 0 10");
  reading.wait();
  Hold again({Call::invalidate, When::before, granule(0)});
  taken.release();
  const pid_t recaller = again.wait();
  again.release();
  wait_until_blocked(recaller);  // for the page that is locked until it is there
  EXPECT_NE(stored.wait_for(std::chrono::seconds(0)), std::future_status::ready);
  reading.release();
  EXPECT_PRED3(is_old_or_new, client_.end(), 'h', 2);
  stored.get();
  EXPECT_EQ(client_.bytes("load 0 10"), all(10, 2));
}

// No deadlock: the request is answered though the recall, which waits for its page, holds the granule.
TEST_P(MountRaces, recall_waits_for_a_locked_page_whose_request_has_not_been_looked_at) {
  client_.must("store 4096 100 1");
  Hold asked({Call::request, When::before, page(0), FUSE_READ});
  other_.begin("load 0 10");
  asked.wait();
  const Hold recalls({Call::invalidate, When::before, granule(0), Moment::kNoRequest, 0});
  Hold recall({Call::invalidate, When::before, granule(0)});
  std::future<unsigned> missed = device_misses(bytes(kPage, 100), 1);
  const pid_t recaller = recall.wait();
  recall.release();
  wait_until_blocked(recaller);
  asked.release();
  EXPECT_EQ(other_.end(), "ok " + all(10, 'h'));
  EXPECT_EQ(missed.get(), 0u);
  EXPECT_GE(recalls.count(), 2u) << "the page that came late is taken as well";
}

TEST_P(MountRaces, page_is_answered_before_it_is_taken) {
  Hold answering({Call::reply_bytes, When::before, page(0), FUSE_READ});
  client_.begin("store 0 100 1");
  answering.wait();
  Hold recall({Call::invalidate, When::before, granule(0)});
  std::future<void> stored = device_stores(bytes(0, 50), 2);
  const pid_t recaller = recall.wait();
  recall.release();
  wait_until_blocked(recaller);
  answering.release();
  EXPECT_EQ(client_.end(), "ok");
  stored.get();
  EXPECT_PRED3(is_old_or_new, other_.bytes("load 0 10"), 1, 2);
  EXPECT_EQ(other_.bytes("load 50 50"), all(50, 1));
}

TEST_P(MountRaces, dirty_page_is_delivered_while_its_granule_is_recalled) {
  client_.must("store 0 100 1");
  const Hold recalled({Call::invalidate, When::after, granule(0), Moment::kNoRequest, 0});
  Hold delivered({Call::pwrite, When::before, page(0), FUSE_WRITE});
  std::future<unsigned> missed = device_misses(bytes(0, 100), 1);
  delivered.wait();
  // Another page of the granule is asked for and stored to: at once, and taken too.
  other_.must("store 8192 100 2");
  EXPECT_EQ(recalled.count(), 0u) << "the recall ended before the bytes had arrived";
  delivered.release();
  EXPECT_EQ(missed.get(), 0u);
  EXPECT_EQ(device_misses(bytes(8192, 100), 2).get(), 0u);
  EXPECT_EQ(client_.bytes("load 0 100"), all(100, 1));
}

TEST_P(MountRaces, store_to_a_page_between_two_recalls) {
  client_.must("store 0 100 1");
  Hold taken({Call::invalidate, When::after, granule(0)});
  std::future<unsigned> missed = device_misses(bytes(0, 100), 3);
  taken.wait();
  client_.must("store 0 100 2");
  Hold again({Call::invalidate, When::before, granule(0)});
  taken.release();
  again.wait();
  client_.must("store 0 100 3");  // without a request: the page is there
  again.release();
  EXPECT_EQ(missed.get(), 0u);
  client_.must("store 0 100 4");
  EXPECT_EQ(device_misses(bytes(0, 100), 4).get(), 0u);
}

TEST_P(MountRaces, page_that_is_asked_for_beside_a_read_is_late_for_no_recall) {
  client_.must("store 4096 10 3");  // the granule is the mount's
  Hold reading({Call::pread, When::before, page(0), FUSE_READ});
  client_.begin("read 0 10");
  reading.wait();
  EXPECT_EQ(other_.bytes("load 8192 10"), all(10, 'h'));
  reading.release();
  EXPECT_EQ(client_.end(), "ok " + all(10, 'h'));
  const Hold recalls({Call::invalidate, When::before, granule(0), Moment::kNoRequest, 0});
  EXPECT_EQ(device_misses(bytes(4096, 10), 3).get(), 0u);
  EXPECT_EQ(recalls.count(), 1u);
}

// A program on another processor may ask again sooner than the recall looks whether it did, each time.
TEST_P(MountRaces, recall_ends_though_a_page_is_asked_for_again_and_again) {
  using Clock = std::chrono::steady_clock;
  constexpr int kRoundsMax = 100;
  client_.must("store 0 10 1");
  std::future<void> stored;  // ends only after what it is held by
  auto taken = std::make_unique<Hold>(Moment{Call::invalidate, When::after, granule(0)});
  stored = device_stores(bytes(0, 1), 2);
  int rounds = 0;
  for (bool recalls = true; recalls && rounds < kRoundsMax; ++rounds) {
    taken->wait();
    Hold asked({Call::request, When::before, page(0), FUSE_READ});
    client_.begin("load 0 10");
    const pid_t reader = asked.wait();
    const Hold answered({Call::request, When::after, page(0), FUSE_READ, 0, reader});
    asked.release();
    const auto soon = Clock::now() + 500us;
    while (answered.count() == 0 && Clock::now() < soon) std::this_thread::yield();
    Hold again({Call::invalidate, When::before, granule(0)});
    taken->release();
    const auto has_ended = [&] { return stored.wait_for(0s) == std::future_status::ready; };
    while (!again.is_reached() && !has_ended()) std::this_thread::yield();
    recalls = again.is_reached();
    EXPECT_PRED3(is_old_or_new, client_.end(), 1, 2);
    taken = std::make_unique<Hold>(Moment{Call::invalidate, When::after, granule(0)});
    again.release();
  }
  EXPECT_LT(rounds, kRoundsMax);
}

TEST_P(MountRaces, recall_ends_though_programs_touch_all_its_pages) {
  constexpr std::uint64_t kPages = 4 * kGranule / kPage;
  std::array<Client, kPages> programs;
  for (std::uint64_t n = 0; n < kPages; ++n) {
    programs[n].must("open " + mounted_.at("file"));
    programs[n].must("map_random");
    programs[n].begin(fmt::format("await {} 60 2", n * kPage));
  }
  device_stores(bytes(0, 4 * kGranule), 2).get();
  for (Client& program : programs) EXPECT_EQ(program.end(), "ok");
}

// What libfuse keeps for each thread is freed by its end, unless the session has ended before.
TEST_P(MountRaces, mount_ends_after_its_threads) {
  Hold end({Call::thread_end, When::before});
  auto unmounted = std::async(std::launch::async, [&] { mounted_.mount().unmount(); });
  auto waited = std::async(std::launch::async, [&] { mounted_.mount().wait(); });
  end.wait();
  EXPECT_EQ(unmounted.wait_for(100ms), std::future_status::timeout);
  EXPECT_EQ(waited.wait_for(0ms), std::future_status::timeout);
  end.release();
  unmounted.get();
  waited.get();
}

// The kernel sends a page whole, with the bytes of it that it did not get from this program: had the page
// been read before the write was home, these would undo the write.
TEST_P(MountRaces, page_is_stored_to_while_another_program_writes_to_it) {
  other_.must("store 4096 10 3");  // the granule is the mount's
  for (const char* command : {"write 0 100 1", "punch 0 100"}) {
    const Call step = command[0] == 'w' ? Call::pwrite : Call::fallocate;
    Hold changing({step, When::before, page(0)});
    client_.begin(command);
    changing.wait();
    Hold asked({Call::request, When::before, page(0), FUSE_READ});
    other_.begin("store 200 10 2");
    const pid_t reader = asked.wait();
    const Hold answered({Call::reply_bytes, When::after, page(0), FUSE_READ, 0, reader});
    asked.release();
    test::wait_until_asleep(reader, [&] { return answered.count() > 0; });
    const bool is_stored = answered.count() > 0;
    if (is_stored) {
      EXPECT_EQ(other_.end(), "ok");
    }
    changing.release();
    EXPECT_EQ(client_.end(), "ok");
    if (!is_stored) {
      EXPECT_EQ(other_.end(), "ok");
    }
    const unsigned char left = command[0] == 'w' ? 1 : 0;
    EXPECT_EQ(device_misses(bytes(0, 100), left).get(), 0u) << command;
    EXPECT_EQ(device_misses(bytes(200, 10), 2).get(), 0u) << command;
    EXPECT_EQ(client_.bytes("read 90 20"), all(10, left) + all(10, 'h')) << command;
  }
}

TEST_P(MountRaces, page_is_asked_for_while_a_device_is_given_the_granule) {
  client_.must("store 0 100 1");
  Hold fill(filling(When::before, 0));
  std::future<void> stored = device_stores(granule(0), 2);
  fill.wait();
  Hold asked({Call::request, When::before, page(0), FUSE_READ});
  client_.begin("load 0 10");
  asked.wait();
  asked.release();
  fill.release();
  stored.get();
  EXPECT_PRED3(is_old_or_new, client_.end(), 1, 2);
  EXPECT_EQ(client_.bytes("load 0 10"), all(10, 2));
}

// A launch has one granule pinned and recalls the other, for which it would wait for ever if a program's
// request for pages of both kept the second one's page locked until it had the first one.
TEST_P(MountRaces, request_spans_a_pinned_granule_and_one_that_is_recalled) {
  mounted_.make("read", std::string(kSize, 'h'));
  Client reader;
  reader.must("open_reading " + mounted_.at("read"));  // by the kernel's pages, several at once
  Mapping read = mounted_.map("read");
  other_.must("open " + mounted_.at("read"));
  other_.must("map_random");
  other_.must(fmt::format("store {} 10 1", 2 * kGranule - kPage));
  Hold recall({Call::invalidate, When::before, granule(1)});
  std::future<void> stored =
      std::async(std::launch::async, [&] { mounted_.device_stores(read, bytes(0, 2 * kGranule), 2); });
  recall.wait();
  // A device with page faults pins nothing: what the kernel reads ahead it can have at once.
  const bool is_pinned = GetParam() == DeviceKind::emulated_strict;
  Hold answered(
      {is_pinned ? Call::reply_error : Call::reply_bytes, When::before, bytes(kGranule - 1, 2), FUSE_READ});
  reader.begin(fmt::format("read 0 {}", 2 * kGranule));
  answered.wait();
  if (is_pinned) {
    Hold waits({Call::request, When::before, page(0), FUSE_READ});
    answered.release();
    waits.wait();  // for the first page alone
  }
  answered.release();
  recall.release();
  stored.get();
  static_cast<void>(reader.end());
  EXPECT_EQ(reader.bytes(fmt::format("read 0 {}", 2 * kGranule)), all(2 * kGranule, 2));
}

TEST_P(MountRaces, file_is_mapped_while_programs_use_it) {
  mounted_.make("later", std::string(kSize, 'h'));
  Client reader;
  reader.must("open_reading " + mounted_.at("later"));
  client_.must("open " + mounted_.at("later"));
  client_.must("map_random");
  client_.must("store 0 100 1");
  EXPECT_EQ(reader.bytes("read 0 10"), all(10, 1));
  Hold recall({Call::invalidate, When::before});
  std::future<Mapping> mapped = std::async(std::launch::async, [&] { return mounted_.map("later"); });
  recall.wait();
  client_.must("store 4096 100 2");
  client_.must("write 8192 100 3");
  EXPECT_EQ(reader.bytes("read 8192 10"), all(10, 3));
  EXPECT_EQ(reader.bytes("read 0 10"), all(10, 1));
  EXPECT_EQ(client_.bytes("read 0 10"), all(10, 1));
  recall.release();
  Mapping later = mapped.get();
  EXPECT_EQ(mounted_.device_misses(later, bytes(0, 100), 1), 0u);
  EXPECT_EQ(mounted_.device_misses(later, bytes(4096, 100), 2), 0u);
  EXPECT_EQ(mounted_.device_misses(later, bytes(8192, 100), 3), 0u);
  mounted_.device_stores(later, bytes(0, kSize), 4);
  EXPECT_EQ(reader.bytes("read 0 10"), all(10, 4));
}

TEST_P(MountRaces, file_is_mapped_while_a_write_is_under_way) {
  mounted_.make("later", std::string(kSize, 'h'));
  client_.must("open " + mounted_.at("later"));
  Hold writing({Call::pwrite, When::before, page(0), FUSE_WRITE});
  client_.begin("write 0 100 1");
  writing.wait();
  std::future<unsigned> missed = std::async(std::launch::async, [&] {
    Mapping later = mounted_.map("later");
    return mounted_.device_misses(later, bytes(0, 100), 1);
  });
  writing.release();
  EXPECT_EQ(client_.end(), "ok");
  EXPECT_EQ(missed.get(), 0u);
}

TEST_P(MountRaces, file_is_let_go_while_programs_use_it) {
  mounted_.make("later", std::string(kSize, 'h'));
  Client reader;
  reader.must("open_reading " + mounted_.at("later"));
  Mapping later = mounted_.map("later");
  client_.must("open " + mounted_.at("later"));
  client_.must("map_random");
  other_.must("open " + mounted_.at("later"));
  mounted_.device_stores(later, bytes(0, kSize), 1);
  client_.must("store 0 100 2");
  Hold copying({Call::pwrite, When::before, granule(1), Moment::kNoRequest});
  std::future<void> let_go = std::async(std::launch::async, [&] { later.close(); });
  copying.wait();
  client_.must("store 0 100 3");  // a page that is there
  Hold asked({Call::request, When::before, granule(1), FUSE_READ});
  client_.begin("store 16384 100 4");
  other_.begin("write 32768 100 5");
  reader.begin("read 49152 10");
  asked.wait();
  asked.release();
  copying.release();
  EXPECT_EQ(client_.end(), "ok");
  EXPECT_EQ(other_.end(), "ok");
  EXPECT_EQ(reader.end(), "ok " + all(10, 1));
  let_go.get();
  EXPECT_EQ(reader.bytes("read 0 110"), all(100, 3) + all(10, 1));
  EXPECT_EQ(reader.bytes("read 16384 110"), all(100, 4) + all(10, 1));
  EXPECT_EQ(reader.bytes("read 32768 110"), all(100, 5) + all(10, 1));
  client_.must("msync");
  EXPECT_EQ(mounted_.content("later").substr(0, 110), std::string(100, '\3') + std::string(10, '\1'));
}

TEST_P(MountRaces, sync_waits_for_what_another_sync_recalls) {
  client_.must("store 0 100 1");
  Hold recall({Call::invalidate, When::before, granule(0)});
  std::future<void> first = std::async(std::launch::async, [&] { mapping_.sync(); });
  recall.wait();
  std::future<void> second = std::async(std::launch::async, [&] { mapping_.sync(); });
  EXPECT_EQ(second.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout)
      << "what the program stored before is not home yet";
  recall.release();
  first.get();
  second.get();
  EXPECT_EQ(mounted_.content("file").substr(0, 110), std::string(100, '\1') + std::string(10, 'h'));
}

TEST_P(MountRaces, sync_elsewhere_succeeds_while_bytes_that_a_failed_one_missed_have_no_mark_yet) {
  using Nanoseconds = std::chrono::nanoseconds;
  const auto stored_at = [&] {
    struct ::stat status {};
    ::stat(mounted_.plain("file").c_str(), &status);
    return std::chrono::seconds(status.st_mtim.tv_sec) + Nanoseconds(status.st_mtim.tv_nsec);
  };
  mounted_.device_stores(mapping_, granule(1), 7);
  Hold stored({Call::pwrite, When::after, granule(1)});
  std::future<void> late = std::async(std::launch::async, [&] { mapping_.sync(granule(1)); });
  stored.wait();
  os::sys::set_fault_plan({.call = os::sys::Call::fdatasync, .nth = 1, .times = 1, .error = EIO});
  EXPECT_THROW(mapping_.sync(granule(3)), Error);
  os::sys::clear_fault_plan();
  EXPECT_NO_THROW(mapping_.sync(granule(3)));
  const Nanoseconds before = stored_at();
  std::this_thread::sleep_for(20ms);  // the clock of file systems ticks every 4
  stored.release();
  EXPECT_NO_THROW(late.get());
  EXPECT_GT(stored_at(), before) << "the kernel was not made to write the bytes once more";
}

TEST_P(MountRaces, unmount_while_a_device_takes_pages) {
  client_.must("store 0 100 1");
  client_.must("store 16384 100 2");
  other_.must("store 32768 100 3");
  Hold recall({Call::invalidate, When::before, granule(0)});
  std::future<void> stored = device_stores(bytes(0, kSize - kGranule), 4);
  recall.wait();
  Hold written({Call::pwrite, When::after, granule(2), FUSE_WRITE});
  std::future<void> unmounted = std::async(std::launch::async, [&] { mounted_.mount().unmount(); });
  written.wait();
  client_.begin("load 20480 10");  // a page that is not there: it comes, or the mount is gone
  written.release();
  recall.release();
  stored.get();
  unmounted.get();
  mapping_.sync();
  EXPECT_EQ(mounted_.content("file"), std::string(kSize - kGranule, '\4') + std::string(kGranule, 'h'));
}

TEST_P(MountRaces, running_kernel_faults_on_pages_that_programs_store_to) {
  client_.must("store 0 65536 0");
  client_.must("store 0 1 10");
  client_.must("store 32768 1 20");
  Hold taken({Call::invalidate, When::after, granule(2)});
  std::future<void> counted = std::async(std::launch::async, [&] {
    mounted_.runtime().launch(Grid::cover(1, 1), CountOnDemand{}, demand_read_write(mapping_)).wait();
  });
  taken.wait();
  EXPECT_EQ(other_.bytes("load 0 1"), all(1, 11)) << "the kernel's store, taken from it while it runs";
  client_.must("store 32768 1 30");
  taken.release();
  counted.get();
  EXPECT_EQ(client_.bytes("load 0 4"), all(1, 11) + all(3, 0));
  EXPECT_EQ(client_.bytes("load 32768 4"), all(1, 31) + all(3, 0));
  EXPECT_EQ(client_.bytes("load 61440 4"), all(1, 1) + all(3, 0));
}

INSTANTIATE_TEST_SUITE_P(Each, MountRaces, testing::Values(DeviceKind::emulated, DeviceKind::emulated_strict),
                         [](const auto& test) {
                           return test.param == DeviceKind::emulated ? "faulting" : "strict";
                         });

}  // namespace
}  // namespace aprime
