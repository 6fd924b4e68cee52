// What the kernel reads ahead of a program is a guess: it follows a program that works through a file that a
// device has, takes nothing from the device otherwise, and waits for nobody.

#include <linux/fuse.h>

#include <atomic>
#include <chrono>
#include <future>
#include <string>
#include <utility>

#include "aprime/device_span.hpp"
#include "tests/mount/held_calls.hpp"
#include "tests/mount/mounted.hpp"

namespace aprime {
namespace {

using test::all;
using test::bytes;
using test::Call;
using test::Client;
using test::Hold;
using test::kGranule;
using test::Moment;
using test::Mounted;
using test::When;

constexpr std::uint64_t kPage = 4096;
/// More than the kernel reads ahead, several times.
constexpr std::uint64_t kPages = 512;
constexpr std::uint64_t kSize = kPages * kPage;

/// Has a granule pinned, until it is told to let go.
struct KeepPinned {
  APRIME_DEVICE void operator()(device_span<unsigned char> bytes, std::atomic<bool>* is_pinned,
                                const std::atomic<bool>* lets_go) const {
    const PinnedSpan<unsigned char> part = bytes.pin_span(0, bytes.size());
    part[0] = 2;
    is_pinned->store(true);
    is_pinned->notify_all();
    lets_go->wait(false);
  }
};

class ReadAhead : public testing::TestWithParam<DeviceKind> {
 protected:
  ReadAhead() {
    mounted_.make("file", std::string(kSize, 'h'));
    mapping_ = mounted_.map("file");
    client_.must("open " + mounted_.at("file"));
    client_.must("map");
    mounted_.device_stores(mapping_, bytes(0, kSize), 1);
  }
  ~ReadAhead() override { mapping_ = Mapping(); }

  std::uint64_t granules_come_home() { return mounted_.runtime().stats().granules_copied_back; }

  Mounted mounted_{GetParam(), HostAccess::adaptive, ByteCount{4 << 20}};
  Mapping mapping_;
  Client client_;
};

TEST_P(ReadAhead, follows_a_program_through_what_a_device_has) {
  const Hold requests({Call::request, When::before, bytes(0, kSize), FUSE_READ, 0});
  EXPECT_EQ(client_.bytes("load 0 " + std::to_string(kSize)), all(kSize, 1));
  EXPECT_LT(requests.count(), kPages / 2) << "one for each page, or nearly";
  EXPECT_EQ(granules_come_home(), kSize / kGranule);
}

TEST_P(ReadAhead, takes_nothing_where_no_program_works) {
  std::uint64_t expected = 0;
  for (const std::uint64_t page : {0, 200, 400}) {
    EXPECT_EQ(client_.bytes("load " + std::to_string(page * kPage) + " 1"), all(1, 1));
    EXPECT_EQ(granules_come_home(), ++expected) << page;
  }
}

// Many pages at once are not read and sent, but moved from the file's pages by the kernel.
TEST_P(ReadAhead, pages_that_are_moved_while_a_device_takes_them_are_taken_again) {
  for (unsigned char value = 2; value < 8; ++value) {
    Hold moved({Call::reply_pages, When::before, bytes(0, kSize), FUSE_READ});
    client_.begin("load 0 " + std::to_string(kSize));
    moved.wait();
    std::future<void> stored =
        std::async(std::launch::async, [&] { mounted_.device_stores(mapping_, bytes(0, kSize), value); });
    EXPECT_EQ(stored.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout)
        << "pages that are locked until they have their bytes are not waited for";
    moved.release();
    const std::string seen = client_.end();
    ASSERT_EQ(seen.size(), 3 + 2 * kSize);
    for (std::size_t at = 3; at < seen.size(); at += 2 * kPage)
      EXPECT_TRUE(seen.substr(at, 2) == all(1, value - 1) || seen.substr(at, 2) == all(1, value)) << at / 2;
    stored.get();
    EXPECT_EQ(client_.bytes("load 0 " + std::to_string(kSize)), all(kSize, value));
    mounted_.device_stores(mapping_, bytes(0, kSize), value);
  }
}

// With its reply, the kernel may have a program close the file and forget it, before the thread that replied
// goes on.
TEST_P(ReadAhead, a_request_has_nothing_of_a_file_once_it_has_replied) {
  for (const auto& [reply, size] :
       {std::pair(Call::reply_pages, kSize), std::pair(Call::reply_bytes, kPage)}) {
    const std::string name = "of_" + std::to_string(size);
    mounted_.make(name, std::string(size, 'p'));
    Hold replied({reply, When::after, bytes(0, kSize), FUSE_READ});
    Client program;
    program.must("open_reading " + mounted_.at(name));
    program.must("map");
    program.begin("load 0 1");
    replied.wait();
    std::future<Mapping> attached = std::async(std::launch::async, [&] { return mounted_.map(name); });
    EXPECT_EQ(attached.wait_for(std::chrono::seconds(20)), std::future_status::ready)
        << "the file cannot be given to devices while its reader's request is not over";
    replied.release();
    EXPECT_EQ(program.end(), "ok " + all(1, 'p'));
    attached.get();
  }
}

TEST_P(ReadAhead, waits_for_no_pin_of_a_running_kernel) {
  constexpr std::uint64_t kPinned = 300 * kPage / kGranule * kGranule;
  std::atomic<bool> is_pinned{false}, lets_go{false};
  std::future<void> pinned = std::async(std::launch::async, [&] {
    mounted_.runtime()
        .launch(Grid::cover(1, 1), KeepPinned{}, demand_read_write(mapping_, bytes(kPinned, kGranule)),
                &is_pinned, static_cast<const std::atomic<bool>*>(&lets_go))
        .wait();
  });
  is_pinned.wait(false);
  client_.begin("load 0 " + std::to_string(kPinned));
  std::future<std::string> loaded = std::async(std::launch::async, [&] { return client_.end(); });
  EXPECT_EQ(loaded.wait_for(std::chrono::seconds(20)), std::future_status::ready)
      << "what was read ahead waits for the kernel";
  lets_go.store(true);
  lets_go.notify_all();
  EXPECT_EQ(loaded.get(), "ok " + all(kPinned, 1));
  pinned.get();
  EXPECT_EQ(client_.bytes("load " + std::to_string(kPinned) + " 2"), all(1, 2) + all(1, 1));
}

INSTANTIATE_TEST_SUITE_P(Each, ReadAhead, testing::Values(DeviceKind::emulated, DeviceKind::emulated_strict),
                         test::name_of_kind);

}  // namespace
}  // namespace aprime
