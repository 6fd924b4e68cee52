// After a crash everything is there that was stored before a sync that returned.
//
// The fault model: the process is killed at any moment, and power fails right after. The disk keeps what
// reached it, in any order that the kernel chose, and has no cache that it could lose; so a write that was
// never sent is found out, and a missing flush of the disk's own cache is not.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fcntl.h>
#include <csignal>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "host/os/file.hpp"
#include "tests/fault/crash_board.hpp"
#include "tests/fault/loop_disk.hpp"
#include "tests/test_scale.hpp"

namespace aprime::fault {
namespace {

using os::Descriptor;

constexpr std::uint64_t kDiskBytes = 16 << 20;

class Crash : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::temp_directory_path().string() + "/aprime-crash-XXXXXX";
    ASSERT_NE(::mkdtemp(directory_.data()), nullptr);
    ASSERT_EQ(::mkdir((directory_ + "/mnt").c_str(), 0700), 0);
    make_disk_image(directory_ + "/empty", kDiskBytes);
    board_fd_ = Descriptor(::memfd_create("board", 0));
    ASSERT_EQ(::ftruncate(board_fd_.get(), sizeof(CrashBoard)), 0);
    void* memory =
        ::mmap(nullptr, sizeof(CrashBoard), PROT_READ | PROT_WRITE, MAP_SHARED, board_fd_.get(), 0);
    ASSERT_NE(memory, MAP_FAILED);
    board_ = static_cast<CrashBoard*>(memory);
  }
  void TearDown() override {
    if (board_ != nullptr) ::munmap(board_, sizeof(CrashBoard));
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  /// Lets a writer work on a new disk, kills it at some moment, takes the power away, and counts the words
  /// that are wrong on the disk as it is found afterwards.
  std::uint64_t wrong_words_after_crash(std::uint64_t seed, const std::string& mode) {
    std::mt19937_64 random(seed);
    for (auto& store : board_->begun) store.store(0);
    for (auto& store : board_->durable) store.store(0);
    board_->syncs.store(0);
    copy_disk_image(directory_ + "/empty", directory_ + "/disk");
    {
      LoopDisk disk(directory_ + "/disk", directory_ + "/mnt");
      make_file();
      const pid_t writer = start_writer(random() % 1000, mode);
      while (board_->syncs.load() == 0 && !has_ended(writer))
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 40'000));
      EXPECT_FALSE(has_ended(writer)) << "the writer gave up by itself";
      ::kill(writer, SIGKILL);
      disk.power_off();
      wait_for(writer);
      copy_disk_image(directory_ + "/disk", directory_ + "/found");
    }
    const LoopDisk found(directory_ + "/found", directory_ + "/mnt");
    return count_wrong_words(seed);
  }

 private:
  void make_file() {
    const Descriptor file(::open(path().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(::ftruncate(file.get(), kCrashGranules * kCrashGranuleBytes), 0);
    ASSERT_EQ(::fsync(file.get()), 0);
    const Descriptor parent(::open((directory_ + "/mnt").c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(::fsync(parent.get()), 0);
  }

  pid_t start_writer(std::uint64_t seed, const std::string& mode) {
    const std::string board = std::to_string(board_fd_.get());
    const std::string seed_text = std::to_string(seed);
    const std::string file = path();
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // it works until it is killed, by whoever kills the test too
      ::execl(APRIME_CRASH_WRITER, APRIME_CRASH_WRITER, file.c_str(), board.c_str(), seed_text.c_str(),
              mode.c_str(), nullptr);
      ::_exit(127);
    }
    return pid;
  }

  static bool has_ended(pid_t pid) {
    siginfo_t info{};
    return ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
           info.si_pid == pid;
  }
  static void wait_for(pid_t pid) {
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  std::uint64_t count_wrong_words(std::uint64_t seed) {
    const Descriptor file(::open(path().c_str(), O_RDONLY | O_CLOEXEC));
    EXPECT_TRUE(file) << "the file is gone";
    std::vector<std::uint64_t> words(kCrashGranules * kCrashWords + 1);
    const ssize_t size = ::pread(file.get(), words.data(), words.size() * sizeof(words[0]), 0);
    words.pop_back();
    EXPECT_EQ(size, static_cast<ssize_t>(words.size() * sizeof(words[0]))) << "the file's size changed";
    std::uint64_t wrong = 0;
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::size_t granule = i / kCrashWords;
      const std::uint64_t store = words[i] >> 16;
      const std::uint64_t durable = board_->durable[granule].load();
      const std::uint64_t begun = board_->begun[granule].load();
      const bool is_hole = words[i] == 0 && durable == 0;
      const bool is_ours = words[i] == crash_word(store, granule) && store >= durable && store <= begun;
      if (is_hole || is_ours) continue;
      if (wrong++ == 0)
        first_wrong_ = "seed " + std::to_string(seed) + ": granule " + std::to_string(granule) + ", word " +
                       std::to_string(i % kCrashWords) + " is from store " + std::to_string(store) +
                       " of granule " + std::to_string(words[i] & 0xffff) + "; synced " +
                       std::to_string(durable) + ", begun " + std::to_string(begun);
    }
    return wrong;
  }

  std::string path() const { return directory_ + "/mnt/file"; }

 protected:
  std::string first_wrong_;

 private:
  std::string directory_;
  Descriptor board_fd_;
  CrashBoard* board_ = nullptr;
};

std::uint64_t seed_of_run() {
  const char* given = std::getenv("APRIME_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
}

class LyingCrash : public Crash {
 protected:
  std::uint64_t wrong_words_of_a_liar(const std::string& mode) {
    const std::uint64_t seed = seed_of_run();
    std::uint64_t wrong = 0;
    for (std::uint64_t round = 0; round < 8 && wrong == 0; ++round)
      wrong = wrong_words_after_crash(seed + round, mode);
    return wrong;
  }
};

TEST_F(Crash, LosesNothingThatWasSynced) {
  const std::uint64_t seed = seed_of_run();
  std::printf("APRIME_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  for (int round = 0; round < test::scaled(48); ++round)
    ASSERT_EQ(wrong_words_after_crash(seed + static_cast<std::uint64_t>(round), "sync"), 0U) << first_wrong_;
}

// Without these the test above could pass because it looks at the wrong place. A round may have luck, all of
// them not.
TEST_F(LyingCrash, IsNoticedIfBytesWereNotSynced) { EXPECT_GT(wrong_words_of_a_liar("claim"), 0U); }
TEST_F(LyingCrash, IsNoticedIfBytesWereOnlyBroughtHome) { EXPECT_GT(wrong_words_of_a_liar("home"), 0U); }

}  // namespace
}  // namespace aprime::fault
