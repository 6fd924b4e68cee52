// Real programs on a mount while a device loads and stores the same files. What they do without a device is
// in tests/cli/mount_programs_test.py.

#include <fmt/format.h>

#include <filesystem>
#include <functional>
#include <numeric>
#include <thread>

#include "tests/contract/kernels.hpp"
#include "tests/mount/mounted.hpp"
#include "tests/test_scale.hpp"

namespace aprime {
namespace {

using namespace test;
using contract::IncrementBytes;

ByteRange whole(const Mapping& mapping) { return {ByteOffset{0}, mapping.size_bytes()}; }

std::uint64_t sum(const std::string& content) {
  return std::accumulate(content.begin(), content.end(), std::uint64_t{0},
                         [](std::uint64_t n, char c) { return n + static_cast<unsigned char>(c); });
}

/// Does something again and again, at least once, until it is ended or destroyed.
class Meanwhile {
 public:
  explicit Meanwhile(std::function<void()> what)
      : thread_([this, what = std::move(what)](const std::stop_token& stop) {
          do what();
          while (!stop.stop_requested());
        }) {}
  void end() {
    thread_.request_stop();
    thread_.join();
  }

 private:
  std::jthread thread_;
};

class MountPrograms : public testing::TestWithParam<DeviceKind> {
 protected:
  void must(const std::string& command) {
    const Answer answer = run_shell(command);
    EXPECT_EQ(answer.status, 0) << command << "\n" << answer.output;
  }

  Mounted mounted_{GetParam(), HostAccess::adaptive, ByteCount{8 << 20}};
};

TEST_P(MountPrograms, sqlite_changes_a_database_that_a_kernel_reads) {
  for (const std::string mode : {"wal", "delete"}) {
    const std::string name = mode + ".db", database = mounted_.at(name);
    const int rows = test::scaled(2000);
    must(fmt::format(
        "sqlite3 -bail {} \"pragma journal_mode={}; create table t(a integer primary key, b text);"
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) "
        "insert into t select i, hex(randomblob(100)) from n; pragma wal_checkpoint(truncate);\"",
        database, mode, rows));
    Mapping mapping = mounted_.map(name);
    Meanwhile reading([&] { mounted_.device_sum(mapping, whole(mapping)); });
    for (int i = 0; i < 5; ++i)
      must(
          fmt::format("sqlite3 -bail {} \"update t set b = hex(randomblob(100)) where a % 5 = {};"
                      "begin; delete from t where a % 7 = 0; rollback; pragma wal_checkpoint(truncate);\"",
                      database, i));
    reading.end();
    const Answer check =
        run_shell(fmt::format("sqlite3 -bail {} 'pragma integrity_check; select count(*) from t'", database));
    EXPECT_EQ(check.output, fmt::format("ok\n{}\n", rows));
    // Who asks the device, and who asks the source, gets the same file.
    const std::string content = run_shell("cat " + database).output;
    EXPECT_EQ(mounted_.device_sum(mapping, whole(mapping)),
              sum(content.substr(0, mapping.size_bytes().value)));
    mapping.sync();
    EXPECT_EQ(mounted_.content(name), content);
  }
}

// Half of the granules are fio's, half are the device's: in turn, or one after the other for fio's mmap
// engine, which cannot skip.
TEST_P(MountPrograms, fio_verifies_granules_whose_neighbours_a_kernel_rewrites) {
  const std::uint64_t size = kGranule * 2 * static_cast<std::uint64_t>(test::scaled(64));
  for (const std::string engine : {"psync", "mmap", "libaio --direct=1 --iodepth=8"}) {
    const std::string name = engine.substr(0, engine.find(' '));
    const bool in_turn = engine != "mmap";
    const std::uint64_t first = in_turn ? kGranule : size / 2, step = in_turn ? 2 * kGranule : kGranule;
    mounted_.make(name, std::string(size, '\0'));
    Mapping mapping = mounted_.map(name);
    unsigned char passes = 0;
    Meanwhile rewriting([&] {
      for (std::uint64_t at = first; at < size; at += step)
        mounted_.runtime()
            .launch(Grid::cover(64, 64), IncrementBytes{}, read_write(mapping, bytes(at, kGranule)))
            .wait();
      ++passes;
    });
    const std::string zones =
        fmt::format("--size={} --zonemode=strided --zonerange={} --zonesize={} --zoneskip={}", size, kGranule,
                    kGranule, kGranule);
    must(fmt::format(
        "fio --minimal --name=v --filename={} --io_size={} --ioengine={} --rw=randwrite --bs=4k {} "
        "--verify=crc32c --verify_backlog=16 --verify_fatal=1 --verify_state_save=0 --randseed=7",
        mounted_.at(name), size / 2, engine, in_turn ? zones : fmt::format("--size={}", size / 2)));
    rewriting.end();
    for (std::uint64_t at = first; at < size; at += step)
      EXPECT_EQ(mounted_.device_misses(mapping, bytes(at, kGranule), passes), 0u) << engine << " at " << at;
  }
}

TEST_P(MountPrograms, git_clones_a_repository_whose_pack_a_kernel_reads) {
  const std::string origin = mounted_.at("origin"),
                    git = "git -c user.name=A -c user.email=a@example.org -C ";
  must(
      fmt::format("git init -q {0} && cd {0} && for n in 1 2 3; do seq $((n * 1000)) > file$n; "
                  "{1} . add . && {1} . commit -qm $n; done && git gc -q && mv .git/objects/pack/*.pack pack",
                  origin, git));
  must(fmt::format("cd {} && cp pack \"$(echo .git/objects/pack/*.idx | sed s/idx/pack/)\"", origin));
  std::string pack;
  for (const auto& entry : std::filesystem::directory_iterator(mounted_.plain("origin/.git/objects/pack")))
    if (entry.path().extension() == ".pack") pack = std::filesystem::relative(entry, mounted_.plain(""));
  Mapping mapping = mounted_.map(pack, Access::read);
  const std::uint64_t expected = sum(mounted_.content(pack));
  Meanwhile reading([&] { EXPECT_EQ(mounted_.device_sum(mapping, whole(mapping)), expected); });
  must(
      fmt::format("git clone -q --no-local {0} {1} && git -C {1} fsck --full --strict && "
                  "git -C {0} fsck --full --strict && test -z \"$(git -C {1} status --porcelain)\"",
                  origin, mounted_.at("clone")));
  reading.end();
}

TEST_P(MountPrograms, copies_are_of_what_the_device_stored) {
  const std::uint64_t size = 8 * kGranule + 100;
  std::filesystem::create_directory(mounted_.plain("tree"));
  mounted_.make("tree/plain", "never on a device");
  mounted_.make("tree/dirty", std::string(size, 'h'));
  Mapping mapping = mounted_.map("tree/dirty");
  const std::string at = mounted_.at("");
  must(fmt::format("cd {} && cp -a tree before", at));
  unsigned char value = 0;
  const auto store = [&] { mounted_.device_stores(mapping, whole(mapping), ++value); };
  const auto is_copied = [&](const std::string& to) {
    EXPECT_EQ(mounted_.content(to + "/dirty"), std::string(size, static_cast<char>(value))) << to;
    EXPECT_EQ(mounted_.content(to + "/plain"), "never on a device");
  };
  store();
  must(fmt::format("cd {} && cp -a tree copied", at));
  is_copied("copied");
  store();
  must(fmt::format("cd {} && mkdir packed && tar -cf - tree | tar -xf - -C packed --strip-components=1", at));
  is_copied("packed");
  store();
  // Neither size nor time need tell that the bytes have changed.
  EXPECT_EQ(run_shell(fmt::format("cd {} && rsync -acni --out-format=%n tree/ before", at)).output,
            "dirty\n");
  must(fmt::format("cd {} && rsync -ac tree/ before", at));
  is_copied("before");
}

INSTANTIATE_TEST_SUITE_P(Each, MountPrograms,
                         testing::Values(DeviceKind::emulated, DeviceKind::emulated_strict),
                         test::name_of_kind);

}  // namespace
}  // namespace aprime
