#include "host/os/file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <thread>
#include <vector>

#include "host/os/syscalls.hpp"
#include "tests/os/temporary_file.hpp"

namespace aprime::os {
namespace {

using testing::ExitedWithCode;

class FileTest : public testing::Test {
 protected:
  ~FileTest() override { sys::clear_fault_plan(); }

  /// Opens a file that has `contents`.
  File make(std::span<const std::byte> contents, Access access = Access::read_write) {
    path_ = directory_.file("f", contents);
    return File::open(path_, access);
  }
  std::vector<std::byte> on_disk() const {
    std::vector<std::byte> bytes(std::filesystem::file_size(path_));
    const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_EQ(::pread(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    ::close(fd);
    return bytes;
  }

  test::TemporaryDirectory directory_;
  std::string path_;
};

TEST_F(FileTest, ReadsWhatIsThereAndZerosPastTheEnd) {
  const auto contents = test::pattern(5000);
  File file = make(contents, Access::read);
  std::vector<std::byte> into(8192, std::byte{0xee});
  ASSERT_TRUE(file.read(ByteOffset{0}, into).is_ok());
  EXPECT_EQ(std::memcmp(into.data(), contents.data(), 5000), 0);
  for (std::size_t i = 5000; i < into.size(); ++i) ASSERT_EQ(into[i], std::byte{0}) << i;
  into.assign(100, std::byte{0xee});
  ASSERT_TRUE(file.read(ByteOffset{1 << 20}, into).is_ok());
  EXPECT_EQ(into, std::vector<std::byte>(100));
}

TEST_F(FileTest, ReadsAfterSomebodyElseTruncatedItSeeZeros) {
  const auto contents = test::pattern(8192);
  File file = make(contents);
  ASSERT_EQ(::truncate(path_.c_str(), 100), 0);
  EXPECT_EQ(file.size().size.value, 100u);
  std::vector<std::byte> into(8192, std::byte{0xee});
  ASSERT_TRUE(file.read(ByteOffset{0}, into).is_ok());
  EXPECT_EQ(std::memcmp(into.data(), contents.data(), 100), 0);
  for (std::size_t i = 100; i < into.size(); ++i) ASSERT_EQ(into[i], std::byte{0}) << i;
}

TEST_F(FileTest, WritesNeverGrowTheFile) {
  auto contents = test::pattern(5000);
  File file = make(contents);
  const auto other = test::pattern(4096, 77);
  ASSERT_TRUE(file.write(ByteOffset{4096}, other).is_ok());
  ASSERT_TRUE(file.write(ByteOffset{5000}, other).is_ok());
  ASSERT_TRUE(file.write(ByteOffset{1 << 20}, other).is_ok());
  std::copy_n(other.begin(), 5000 - 4096, contents.begin() + 4096);
  EXPECT_EQ(on_disk(), contents);
  ASSERT_EQ(::truncate(path_.c_str(), 10), 0);
  ASSERT_TRUE(file.write(ByteOffset{0}, other).is_ok());
  EXPECT_EQ(file.size().size.value, 10u);
}

TEST_F(FileTest, DirectTransfersKeepTheRulesOfTheTail) {
  for (const std::size_t size : {std::size_t{3 * 4096}, std::size_t{3 * 4096 + 1000}, std::size_t{700}}) {
    auto contents = test::pattern(size);
    File file = make(contents);
    ASSERT_EQ(4096 % file.direct_alignment().value, 0u);
    const Mapped buffer = Mapped::anonymous(16 * 4096);
    std::memset(buffer.data(), 0xee, buffer.size());
    ASSERT_TRUE(file.read_direct(ByteOffset{0}, buffer.bytes()).is_ok());
    EXPECT_EQ(std::memcmp(buffer.data(), contents.data(), size), 0);
    for (std::size_t i = size; i < buffer.size(); ++i) ASSERT_EQ(buffer.data()[i], std::byte{0}) << i;
    const auto other = test::pattern(buffer.size(), 50);
    std::memcpy(buffer.data(), other.data(), other.size());
    ASSERT_TRUE(file.write_direct(ByteOffset{0}, buffer.bytes()).status.is_ok());
    ASSERT_TRUE(file.write_direct(ByteOffset{1 << 20}, buffer.bytes()).status.is_ok());
    contents.assign(other.begin(), other.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_EQ(on_disk(), contents);
  }
}

TEST_F(FileTest, DirectTransfersThatAreRefusedGoThroughThePageCacheAndAreToBeSynced) {
  auto contents = test::pattern(8192);
  File file = make(contents);
  const Mapped buffer = Mapped::anonymous(8192);
  // Where the file system refuses O_DIRECT by itself, there is nothing to inject.
  const auto refuse = [&](sys::Call call) {
    const sys::Call hit = file.direct_supported() ? call : sys::Call::count_;
    sys::set_fault_plan({.call = hit, .nth = 1, .times = 1, .error = EINVAL});
  };
  refuse(sys::Call::pread);
  ASSERT_TRUE(file.read_direct(ByteOffset{0}, buffer.bytes()).is_ok());
  EXPECT_EQ(std::memcmp(buffer.data(), contents.data(), 8192), 0);
  refuse(sys::Call::pwrite);
  std::memset(buffer.data(), 5, 8192);
  const File::DirectResult written = file.write_direct(ByteOffset{0}, buffer.bytes());
  ASSERT_TRUE(written.status.is_ok());
  EXPECT_TRUE(written.needs_sync);
  EXPECT_EQ(sys::calls_made(sys::Call::fdatasync), 0u) << "it would be told of others' bytes";
  EXPECT_EQ(on_disk(), std::vector<std::byte>(8192, std::byte{5}));
}

TEST_F(FileTest, TransfersAreRetriedAfterInterruptions) {
  File file = make(test::pattern(4096));
  std::vector<std::byte> bytes(4096);
  for (const sys::Call call :
       {sys::Call::pread, sys::Call::pwrite, sys::Call::fdatasync, sys::Call::ftruncate}) {
    sys::set_fault_plan({.call = call, .nth = 1, .times = 3, .error = EINTR});
    EXPECT_TRUE(file.read(ByteOffset{0}, bytes).is_ok());
    EXPECT_TRUE(file.write(ByteOffset{0}, bytes).is_ok());
    EXPECT_TRUE(file.sync().is_ok());
    EXPECT_TRUE(file.truncate(ByteCount{4096}).is_ok());
    EXPECT_EQ(sys::faults_injected(), 3u) << sys::name_of(call);
  }
}

TEST_F(FileTest, FailuresKeepTheirKindTheirErrnoAndTheirPlace) {
  File file = make(test::pattern(8192));
  std::vector<std::byte> bytes(4096);
  const auto expect = [](const Status& s, Errc code, int error, std::uint64_t at) {
    EXPECT_EQ(s.code, code);
    EXPECT_EQ(s.system_error, error);
    EXPECT_EQ(s.offset.value, at);
  };
  const auto plan = [](sys::Call call, int error) {
    sys::set_fault_plan({.call = call, .nth = 1, .times = 1, .error = error});
  };
  plan(sys::Call::pread, EIO);
  expect(file.read(ByteOffset{4096}, bytes), Errc::io, EIO, 4096);
  plan(sys::Call::pwrite, EIO);
  expect(file.write(ByteOffset{4096}, bytes), Errc::io, EIO, 4096);
  plan(sys::Call::pwrite, ENOSPC);
  expect(file.write(ByteOffset{4096}, bytes), Errc::no_space, ENOSPC, 4096);
  plan(sys::Call::pwrite, EDQUOT);
  expect(file.write(ByteOffset{4096}, bytes), Errc::no_space, EDQUOT, 4096);
  plan(sys::Call::fstat, EIO);
  expect(file.write(ByteOffset{4096}, bytes), Errc::io, EIO, 4096);
  plan(sys::Call::fdatasync, ENOSPC);
  expect(file.sync(), Errc::no_space, ENOSPC, 0);
  plan(sys::Call::ftruncate, EIO);
  expect(file.truncate(ByteCount{10}), Errc::io, EIO, 10);
  plan(sys::Call::fallocate, EIO);
  expect(file.punch({ByteOffset{4096}, ByteCount{10}}), Errc::io, EIO, 4096);
  plan(sys::Call::fstat, EIO);
  EXPECT_EQ(file.size().status.code, Errc::io);
  sys::clear_fault_plan();
  EXPECT_EQ(file.truncate(ByteCount{~std::uint64_t{0}}).code, Errc::invalid_argument);
}

TEST_F(FileTest, TruncateSetsTheSizeAndPunchLeavesZeros) {
  auto contents = test::pattern(20000);
  File file = make(contents);
  for (const bool has_holes : {true, false}) {
    if (!has_holes) {
      sys::set_fault_plan({.call = sys::Call::fallocate, .nth = 1, .times = 1, .error = EOPNOTSUPP});
    }
    ASSERT_TRUE(file.punch({ByteOffset{has_holes ? 100u : 1000u}, ByteCount{18000}}).is_ok());
    ASSERT_TRUE(file.punch({ByteOffset{0}, ByteCount{0}}).is_ok());
    std::fill_n(contents.begin() + (has_holes ? 100 : 1000), 18000, std::byte{0});
    EXPECT_EQ(on_disk(), contents);
    sys::clear_fault_plan();
  }
  sys::set_fault_plan({.call = sys::Call::fallocate, .nth = 1, .times = 1, .error = EOPNOTSUPP});
  ASSERT_TRUE(file.punch({ByteOffset{19000}, ByteCount{18000}}).is_ok());
  EXPECT_EQ(file.size().size.value, 20000u) << "a hole past the end does not grow the file";
  ASSERT_TRUE(file.truncate(ByteCount{30000}).is_ok());
  EXPECT_EQ(file.size().size.value, 30000u);
}

TEST_F(FileTest, AFileOpenedForReadingRefusesToBeChanged) {
  const auto contents = test::pattern(4096);
  File file = make(contents, Access::read);
  const Mapped buffer = Mapped::anonymous(4096);
  EXPECT_EQ(file.access(), Access::read);
  EXPECT_EQ(file.write(ByteOffset{0}, buffer.bytes()).code, Errc::access_denied);
  EXPECT_EQ(file.write_direct(ByteOffset{0}, buffer.bytes()).status.code, Errc::access_denied);
  EXPECT_EQ(file.truncate(ByteCount{0}).code, Errc::access_denied);
  EXPECT_EQ(file.punch({ByteOffset{0}, ByteCount{4096}}).code, Errc::access_denied);
  EXPECT_EQ(on_disk(), contents);
}

TEST_F(FileTest, ReadingMayBecomeWritingEvenAfterARename) {
  File file = make(test::pattern(4096), Access::read);
  const std::string moved = directory_.name("g");
  ASSERT_EQ(::rename(path_.c_str(), moved.c_str()), 0);
  directory_.file("f", test::pattern(10));
  file.make_writable(path_);
  file.make_writable(path_);
  EXPECT_EQ(file.access(), Access::read_write);
  const Mapped zeros = Mapped::anonymous(4096);
  ASSERT_TRUE(file.write_direct(ByteOffset{0}, zeros.bytes()).status.is_ok());
  EXPECT_EQ(std::filesystem::file_size(path_), 10u);
  path_ = moved;
  EXPECT_EQ(on_disk(), std::vector<std::byte>(4096));
}

TEST_F(FileTest, WithoutProcTheNameMustStillLeadToTheFile) {
  File file = make(test::pattern(4096), Access::read);
  sys::set_fault_plan({.call = sys::Call::open, .nth = 1, .times = 1, .error = ENOENT});
  const std::string other = directory_.file("g", {});
  try {
    file.make_writable(other);
    ADD_FAILURE() << "no exception";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::cannot_open);
    EXPECT_NE(std::string(e.what()).find("another file"), std::string::npos);
  }
  EXPECT_EQ(file.access(), Access::read);
  sys::set_fault_plan({.call = sys::Call::open, .nth = 1, .times = 1, .error = ENOENT});
  file.make_writable(path_);
  EXPECT_EQ(file.access(), Access::read_write);
}

TEST_F(FileTest, OneFileHasOneIdentityByAnyName) {
  const File file = make(test::pattern(10));
  const std::string hard = directory_.name("hard");
  const std::string soft = directory_.name("soft");
  ASSERT_EQ(::link(path_.c_str(), hard.c_str()), 0);
  ASSERT_EQ(::symlink(path_.c_str(), soft.c_str()), 0);
  EXPECT_EQ(File::open(hard, Access::read).identity(), file.identity());
  EXPECT_EQ(File::open(soft, Access::read).identity(), file.identity());
  EXPECT_FALSE(File::open(directory_.file("g", {}), Access::read).identity() == file.identity());
  EXPECT_EQ(File::open(soft, Access::read).path(), soft);
}

TEST_F(FileTest, SaysWhatIsThereInsteadOfAFile) {
  const auto message = [](const std::string& path, Access access) -> std::string {
    try {
      File::open(path, access);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Errc::cannot_open);
      EXPECT_EQ(e.path(), path);
      return e.what();
    }
    return "opened";
  };
  const std::string fifo = directory_.name("fifo");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const std::string loop = directory_.name("loop");
  ASSERT_EQ(::symlink(loop.c_str(), loop.c_str()), 0);
  const std::string plain = directory_.file("plain", {});
  struct Case {
    std::string path;
    const char* words;
  };
  for (const Access access : {Access::read, Access::read_write}) {
    for (const Case& c :
         {Case{directory_.path(), "directory"}, Case{directory_.path() + "/none", "no such file"},
          Case{fifo, "named pipe"}, Case{"/dev/null", "character device"},
          Case{plain + "/below", "no directory"}, Case{loop, "symbolic links"}}) {
      const std::string text = message(c.path, access);
      EXPECT_NE(text.find(c.words), std::string::npos) << text;
      EXPECT_NE(text.find(c.path), std::string::npos) << text;
    }
  }
  EXPECT_EQ(message("/none", Access::read).find("create it"), std::string::npos)
      << "an empty file would be no help";
  EXPECT_NE(message("/none", Access::read_write).find("create it with"), std::string::npos);
  for (const auto& [error, words] : {std::pair{EROFS, "read-only"}, std::pair{EPERM, "immutable"},
                                     std::pair{ETXTBSY, "running"}, std::pair{ENXIO, "socket"}}) {
    sys::set_fault_plan({.call = sys::Call::open, .nth = 1, .times = 1, .error = error});
    EXPECT_NE(message(plain, Access::read_write).find(words), std::string::npos) << words;
    sys::clear_fault_plan();
  }
}

TEST_F(FileTest, WantOfDescriptorsIsNotTheFilesFault) {
  const std::string path = directory_.file("f", {});
  sys::set_fault_plan({.call = sys::Call::open, .nth = 1, .times = 1, .error = EMFILE});
  try {
    File::open(path, Access::read);
    ADD_FAILURE() << "no exception";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::resources);
    EXPECT_EQ(e.system_error(), EMFILE);
  }
}

TEST_F(FileTest, SaysThatPermissionIsMissingAndWhatToDo) {
  const std::string path = directory_.file("secret", {});
  ASSERT_EQ(::chmod(path.c_str(), 0400), 0);
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0755), 0);
  GTEST_FLAG_SET(death_test_style, "fast");
  const auto open_as_somebody_else = [&](Access access) {
    if (::geteuid() == 0 && (::chown(path.c_str(), 65534, 65534) != 0 || ::setuid(65534) != 0)) std::_Exit(1);
    try {
      File::open(path, access);
      std::_Exit(3);
    } catch (const Error& e) {
      std::fprintf(stderr, "%s\n", e.what());
      std::_Exit(e.code() == Errc::cannot_open && e.system_error() == EACCES ? 0 : 2);
    }
  };
  // The owner may read it.
  EXPECT_EXIT(open_as_somebody_else(Access::read), ExitedWithCode(3), "");
  EXPECT_EXIT(open_as_somebody_else(Access::read_write), ExitedWithCode(0), "secret.*open it read-only");
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  EXPECT_EXIT(open_as_somebody_else(Access::read), ExitedWithCode(0), "secret.*no permission to read");
}

TEST_F(FileTest, TheAliasShowsTheFileAndGrowsWithoutMoving) {
  const auto contents = test::pattern(10000);
  File file = make(contents);
  const auto first = file.alias();
  ASSERT_GE(first.size(), 10000u);
  EXPECT_EQ(std::memcmp(first.data(), contents.data(), 10000), 0);
  ASSERT_TRUE(file.truncate(ByteCount{1 << 20}).is_ok());
  file.extend_alias(ByteCount{1 << 20});
  const auto second = file.alias();
  ASSERT_GE(second.size(), std::size_t{1} << 20);
  file.extend_alias(ByteCount{10});
  EXPECT_EQ(file.alias().data(), second.data());
  const auto other = test::pattern(4096, 3);
  ASSERT_TRUE(file.write(ByteOffset{0}, other).is_ok());
  EXPECT_EQ(std::memcmp(first.data(), other.data(), 4096), 0);
  EXPECT_EQ(std::memcmp(second.data(), other.data(), 4096), 0);
}

TEST_F(FileTest, TheAliasIsEmptyWhereThereIsNothingToMap) {
  EXPECT_TRUE(make({}).alias().empty());
  sys::set_fault_plan({.call = sys::Call::mmap, .nth = 1, .times = 1, .error = ENODEV});
  File file = make(test::pattern(100));
  EXPECT_TRUE(file.alias().empty());
  file.extend_alias(ByteCount{100});
  EXPECT_EQ(file.alias().size(), 100u);
}

TEST_F(FileTest, AMappingSharesItsBytesWithTheFile) {
  const auto contents = test::pattern(3 * 4096);
  File file = make(contents);
  const Mapped mapped = file.map_shared({ByteOffset{4096}, ByteCount{8192}}, Access::read_write);
  EXPECT_EQ(std::memcmp(mapped.data(), contents.data() + 4096, 8192), 0);
  mapped.data()[1] = std::byte{0xfe};
  std::vector<std::byte> one(1);
  ASSERT_TRUE(file.read(ByteOffset{4097}, one).is_ok());
  EXPECT_EQ(one[0], std::byte{0xfe});
}

TEST_F(FileTest, MappingsSayWhyTheyCannotBe) {
  const auto fail_with = [](File& file, int error, Errc code, const char* words) {
    if (error != 0) sys::set_fault_plan({.call = sys::Call::mmap, .nth = 1, .times = 1, .error = error});
    try {
      file.map_shared({ByteOffset{0}, ByteCount{4096}}, Access::read_write);
      ADD_FAILURE() << "no exception";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code);
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
      EXPECT_EQ(e.path(), file.path());
    }
    sys::clear_fault_plan();
  };
  File file = make(test::pattern(4096));
  fail_with(file, ENODEV, Errc::cannot_open, "cannot map files");
  fail_with(file, ENOMEM, Errc::resources, "max_map_count");
  File read_only = make(test::pattern(4096), Access::read);
  fail_with(read_only, 0, Errc::cannot_open, "not open for writing");
}

TEST_F(FileTest, ChildrenDoNotInheritMappings) {
  File file = make(test::pattern(4096));
  const Mapped mapped = file.map_shared({ByteOffset{0}, ByteCount{4096}}, Access::read_write);
  for (const std::byte* address : {static_cast<const std::byte*>(mapped.data()), file.alias().data()}) {
    const pid_t child = ::fork();
    if (child == 0) {
      // A system call tells what is mapped without a crash.
      const int sink = ::open(directory_.path().c_str(), O_TMPFILE | O_WRONLY, 0600);
      std::_Exit(::write(sink, address, 1) == -1 && errno == EFAULT ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
}

TEST_F(FileTest, ASparseTebibyteOpensAndMapsAtOnce) {
  const std::string path = directory_.sparse("huge", std::size_t{1} << 40);
  // The processor's: a machine that does other things meanwhile counts for nothing.
  const std::clock_t start = std::clock();
  File file = File::open(path, Access::read_write);
  const Mapped mapped =
      file.map_shared({ByteOffset{0}, ByteCount{std::uint64_t{1} << 40}}, Access::read_write);
  EXPECT_LT(std::clock() - start, CLOCKS_PER_SEC / 2);  // takes 0.1 ms
  EXPECT_EQ(mapped.size(), std::size_t{1} << 40);
  EXPECT_EQ(file.alias().size(), std::size_t{1} << 40);
}

TEST_F(FileTest, HintsChangeNoBytes) {
  const auto contents = test::pattern(8192);
  File file = make(contents);
  for (const Advice a :
       {Advice::normal, Advice::sequential, Advice::random, Advice::will_need, Advice::dont_need}) {
    file.advise({ByteOffset{0}, ByteCount{8192}}, a);
  }
  file.start_writeback({ByteOffset{0}, ByteCount{8192}});
  ASSERT_TRUE(file.sync().is_ok());
  EXPECT_EQ(on_disk(), contents);
}

TEST_F(FileTest, ThreadsReadAndWriteWhileItBecomesWritableAndItsAliasGrows) {
  File file = make(test::pattern(1 << 16), Access::read);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      std::vector<std::byte> bytes(4096);
      while (!stop.load()) {
        if (!file.read(ByteOffset{4096}, bytes).is_ok()) wrong.fetch_add(1);
        const bool was_writable = file.access() == Access::read_write;
        if (!file.write(ByteOffset{4096}, bytes).is_ok() && was_writable) wrong.fetch_add(1);
        if (file.alias().size() < std::size_t{1} << 16) wrong.fetch_add(1);
      }
    });
  }
  for (std::uint64_t size = 1 << 17; size < std::uint64_t{1} << 30; size *= 2)
    file.extend_alias(ByteCount{size});
  file.make_writable(path_);
  ::usleep(5000);
  stop.store(true);
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0);
}

}  // namespace
}  // namespace aprime::os
