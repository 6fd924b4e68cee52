// A program that makes, uses, replaces and removes files of a mount, whatever others do with them. Says
// nothing but what it should not have seen: see passing_files.hpp.
//
// usage: passing_program DIRECTORY SEED OPERATIONS

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/mount/passing_files.hpp"
#include "tests/stress/random.hpp"

namespace aprime::test {
namespace {

constexpr std::size_t kBytes = kPassingWords * sizeof(std::uint64_t);
using Words = std::vector<std::uint64_t>;

[[noreturn]] void refuse(const std::string& what) {
  throw std::runtime_error(what + ": " + std::strerror(errno));
}

class Program {
 public:
  Program(std::string directory, std::uint64_t seed) : directory_(std::move(directory)), random_(seed) {}

  void run(std::uint64_t operations) {
    for (std::uint64_t i = 0; i < operations; ++i) {
      switch (random_.below(8)) {
        case 0: make(); break;
        case 1: copy(); break;
        case 2: move(); break;
        case 3: add(); break;
        default: look(); break;
      }
    }
  }

 private:
  std::string some() { return directory_ + "/" + passing_name(random_.next()); }
  std::string own() const { return directory_ + "/of" + std::to_string(::getpid()); }

  /// Negative if there is none: somebody removed it, which is no fault.
  static int open(const std::string& path, int flags) {
    const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
    if (fd < 0 && errno != ENOENT) refuse("open " + path);
    return fd;
  }

  void make() {
    const int fd = open(own(), O_RDWR | O_CREAT | O_TRUNC);
    const Words words(kPassingWords, random_.between(1, 0xffffffff) << kMarkShift);
    if (::write(fd, words.data(), kBytes) != ssize_t{kBytes}) refuse("write");
    if (random_.one_in(4) && ::fsync(fd) != 0) refuse("fsync");
    const std::string to = some();
    if (::rename(own().c_str(), to.c_str()) != 0) refuse("rename over " + to);
    see(fd);
  }

  void copy() {
    const int from = open(some(), O_RDONLY);
    if (from < 0) return;
    const int to = open(own(), O_RDWR | O_CREAT | O_TRUNC);
    for (std::size_t copied = 0; copied < kBytes;) {
      const ssize_t n = ::copy_file_range(from, nullptr, to, nullptr, kBytes - copied, 0);
      if (n <= 0) refuse("copy_file_range");
      copied += static_cast<std::size_t>(n);
    }
    ::close(from);
    if (::rename(own().c_str(), some().c_str()) != 0) refuse("rename of a copy");
    see(to);
  }

  void move() {
    const std::string from = some(), to = some();
    const bool moves = random_.one_in(2);
    if ((moves ? ::rename(from.c_str(), to.c_str()) : ::unlink(from.c_str())) != 0 && errno != ENOENT)
      refuse((moves ? "rename " : "unlink ") + from);
  }

  void add() {
    const int fd = open(some(), O_RDWR);
    if (fd < 0) return;
    std::uint64_t* const words = map(fd, PROT_READ | PROT_WRITE);
    for (std::uint64_t n = random_.below(20); n > 0; --n)
      std::atomic_ref(words[random_.below(kPassingWords)]).fetch_add(1);
    if (random_.one_in(4) && ::msync(words, kBytes, MS_SYNC) != 0) refuse("msync");
    const Words now(words, words + kPassingWords);
    ::munmap(words, kBytes);
    tell(now, {});
    see(fd);
  }

  void look() {
    if (const int fd = open(some(), random_.one_in(2) ? O_RDONLY : O_RDWR); fd >= 0) see(fd);
  }

  /// Looks at an open file several times, and closes it.
  void see(int fd) {
    Words before;
    for (std::uint64_t times = random_.between(0, 3); times > 0; --times) {
      Words now(kPassingWords);
      if (random_.one_in(2)) {
        if (::pread(fd, now.data(), kBytes, 0) != ssize_t{kBytes}) refuse("pread");
      } else {
        std::uint64_t* const words = map(fd, PROT_READ);
        std::memcpy(now.data(), words, kBytes);
        ::munmap(words, kBytes);
      }
      tell(now, before);
      before = std::move(now);
    }
    if (::close(fd) != 0) refuse("close");
  }

  static std::uint64_t* map(int fd, int rights) {
    void* const words = ::mmap(nullptr, kBytes, rights, MAP_SHARED, fd, 0);
    if (words == MAP_FAILED) refuse("mmap");
    return static_cast<std::uint64_t*>(words);
  }

  static void tell(const Words& now, const Words& before) {
    if (const std::string fault = fault_of(now, before); !fault.empty()) throw std::runtime_error(fault);
  }

  const std::string directory_;
  stress::Random random_;
};

}  // namespace
}  // namespace aprime::test

int main(int, char** arguments) {
  const auto number = [&](int i) { return std::strtoull(arguments[i], nullptr, 10); };
  try {
    aprime::test::Program(arguments[1], number(2)).run(number(3));
  } catch (const std::exception& error) {
    std::cout << error.what() << std::endl;
    return 1;
  }
}
