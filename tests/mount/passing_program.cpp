// A program that makes, uses, replaces and removes files of a mount, whatever others do with them. Says
// nothing but what it should not have seen: see passing_files.hpp.
//
// usage: passing_program DIRECTORY SEED OPERATIONS [patient]
// `patient`: calls, loads and stores may fail; it goes on with something else.

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
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

/// A call that failed.
class Refused : public std::runtime_error {
 public:
  explicit Refused(const std::string& what) : std::runtime_error(what + ": " + std::strerror(errno)) {}
};

class OpenFile {
 public:
  /// Is not open if there is no such file: somebody removed it, which is no fault.
  OpenFile(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {
    if (fd_ < 0 && errno != ENOENT) throw Refused("open " + path);
  }
  ~OpenFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  bool is_open() const noexcept { return fd_ >= 0; }
  int get() const noexcept { return fd_; }

 private:
  const int fd_;
};

sigjmp_buf where_bus_goes;
void on_bus(int) { siglongjmp(where_bus_goes, 1); }

class Mapped {
 public:
  Mapped(const OpenFile& file, int rights)
      : words_(::mmap(nullptr, kBytes, rights, MAP_SHARED, file.get(), 0)) {
    if (words_ == MAP_FAILED) throw Refused("mmap");
  }
  ~Mapped() { ::munmap(words_, kBytes); }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;

  /// \pre `use` leaves nothing that a destructor would have to undo
  template <class Use>
  void touch(const Use& use) const {
    if (sigsetjmp(where_bus_goes, 1) != 0) throw Refused("SIGBUS");
    use(static_cast<std::uint64_t*>(words_));
  }
  void sync() const {
    if (::msync(words_, kBytes, MS_SYNC) != 0) throw Refused("msync");
  }

 private:
  void* const words_;
};

class Program {
 public:
  Program(std::string directory, std::uint64_t seed, bool is_patient)
      : directory_(std::move(directory)), random_(seed), is_patient_(is_patient) {}

  void run(std::uint64_t operations) {
    for (std::uint64_t i = 0; i < operations; ++i) {
      try {
        do_something();
      } catch (const Refused&) {
        if (!is_patient_) throw;
      }
    }
  }

 private:
  std::string some() { return directory_ + "/" + passing_name(random_.next()); }
  std::string own() const { return directory_ + "/" + passing_name_of(::getpid()); }

  void do_something() {
    switch (random_.below(8)) {
      case 0: return make();
      case 1: return copy();
      case 2: return move();
      case 3: return add();
      default: return look();
    }
  }

  void make() {
    const OpenFile file(own(), O_RDWR | O_CREAT | O_TRUNC);
    const Words words(kPassingWords, random_.between(1, 0xffffffff) << kMarkShift);
    if (::write(file.get(), words.data(), kBytes) != ssize_t{kBytes}) throw Refused("write");
    if (random_.one_in(4) && ::fsync(file.get()) != 0) throw Refused("fsync");
    const std::string to = some();
    if (::rename(own().c_str(), to.c_str()) != 0) throw Refused("rename over " + to);
    see(file);
  }

  void copy() {
    const OpenFile from(some(), O_RDONLY);
    if (!from.is_open()) return;
    const OpenFile to(own(), O_RDWR | O_CREAT | O_TRUNC);
    for (std::size_t copied = 0; copied < kBytes;) {
      const ssize_t n = ::copy_file_range(from.get(), nullptr, to.get(), nullptr, kBytes - copied, 0);
      if (n <= 0) throw Refused("copy_file_range");
      copied += static_cast<std::size_t>(n);
    }
    if (::rename(own().c_str(), some().c_str()) != 0) throw Refused("rename of a copy");
    see(to);
  }

  void move() {
    const std::string from = some(), to = some();
    const bool moves = random_.one_in(2);
    if ((moves ? ::rename(from.c_str(), to.c_str()) : ::unlink(from.c_str())) != 0 && errno != ENOENT)
      throw Refused((moves ? "rename " : "unlink ") + from);
  }

  void add() {
    const OpenFile file(some(), O_RDWR);
    if (!file.is_open()) return;
    const Mapped mapped(file, PROT_READ | PROT_WRITE);
    for (std::uint64_t n = random_.below(20); n > 0; --n) {
      const std::uint64_t at = random_.below(kPassingWords);
      mapped.touch([at](std::uint64_t* words) { std::atomic_ref(words[at]).fetch_add(1); });
    }
    if (random_.one_in(4)) mapped.sync();
    see(file);
  }

  void look() {
    const OpenFile file(some(), random_.one_in(2) ? O_RDONLY : O_RDWR);
    if (file.is_open()) see(file);
  }

  /// Several times.
  void see(const OpenFile& file) {
    Words before;
    for (std::uint64_t times = random_.between(0, 3); times > 0; --times) {
      Words now(kPassingWords);
      if (random_.one_in(2)) {
        if (::pread(file.get(), now.data(), kBytes, 0) != ssize_t{kBytes}) throw Refused("pread");
      } else {
        Mapped(file, PROT_READ).touch([&](const std::uint64_t* words) {
          std::memcpy(now.data(), words, kBytes);
        });
      }
      if (const std::string fault = fault_of(now, before); !fault.empty()) throw std::runtime_error(fault);
      // A page that could not be written back may be lost.
      if (!is_patient_) before = std::move(now);
    }
  }

  const std::string directory_;
  stress::Random random_;
  const bool is_patient_;
};

}  // namespace
}  // namespace aprime::test

int main(int count, char** arguments) {
  const auto number = [&](int i) { return std::strtoull(arguments[i], nullptr, 10); };
  const bool is_patient = count > 4;
  if (is_patient) ::signal(SIGBUS, aprime::test::on_bus);
  try {
    aprime::test::Program(arguments[1], number(2), is_patient).run(number(3));
  } catch (const std::exception& error) {
    std::cout << error.what() << std::endl;
    return 1;
  }
}
